# The commands of the README. Each sets up .venv first if needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# DVC runs the stages with the first `python` on PATH.
export PATH := $(abspath $(VENV))/bin:$(PATH)

# With these, Python would find other modules than those here and in .venv, or not end well.
unexport PYTHONHOME PYTHONINSPECT PYTHONOPTIMIZE PYTHONPATH PYTHONSAFEPATH PYTHONWARNINGS

# Two pips must not install into .venv at once (make -j2 repro test).
.NOTPARALLEL:

.PHONY: help repro verify test test-slow smoke report hooks seeds sweep bench grow
help:
	@echo "make repro      set up, then run the pipeline (dvc repro with parallel trainings)"
	@echo "make verify     run it from scratch in a temporary clone and compare every byte"
	@echo "make test       set up, then run the tests"
	@echo "make test-slow  run the slow tests, such as all commands of the README"
	@echo "make smoke      run a small version of the whole pipeline in a temporary copy"
	@echo "make report     compare the results of HEAD with BASE (main); writes report/"
	@echo "make hooks      install git hooks that run ruff and DVC"
	@echo "make seeds      metrics of the README: mean and standard error over ten seeds (ten runs)"
	@echo "make sweep      effect of each setting on the losses, for EXPERIMENTS.md (81 runs: an hour on two cores)"
	@echo "make bench      speed compared with a plain notebook loop, for the README (an hour)"
	@echo "make grow       time and memory for lists of up to 30 million names (15 minutes or more)"

repro: $(VENV)/.installed .dvc/vega.js
	@exec "$(BIN)/python" -m pipeline.side_by_side

verify: $(VENV)/.installed
	@"$(BIN)/python" -m pipeline.verify

test: $(VENV)/.chromium
	"$(BIN)/python" -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/.chromium
	"$(BIN)/python" -m pytest -m slow

# Settings of a small run.
SMALL := -S epochs=1 -S compact.epochs=1 -S hybrid.epochs=1 -S sample.count=100
BASE ?= main

smoke: $(VENV)/.installed
	@"$(BIN)/python" -m pipeline.clone
	"$(BIN)/dvc" exp run --temp --name smoke --force $(SMALL)
	"$(BIN)/dvc" exp show --no-pager --only-changed
	"$(BIN)/dvc" exp remove smoke

report: $(VENV)/.installed
	@"$(BIN)/python" .github/report.py $(SMALL) "$(BASE)"

hooks: $(VENV)/.installed-dev
	"$(BIN)/pre-commit" install

seeds: $(VENV)/.installed
	"$(BIN)/python" -m experiments.seeds $(SEEDS_OPTIONS)

sweep: $(VENV)/.installed
	"$(BIN)/python" -m experiments.sweep $(SWEEP_OPTIONS)
	"$(BIN)/python" -m pipeline.readme

bench: $(VENV)/.installed
	"$(BIN)/python" -m benchmarks.run $(BENCH_OPTIONS)
	"$(BIN)/python" -m benchmarks.time_to_loss
	"$(BIN)/python" -m pipeline.readme

grow: $(VENV)/.installed
	"$(BIN)/python" -m benchmarks.grow $(GROW_OPTIONS)
	"$(BIN)/python" -m pipeline.readme

$(VENV)/.installed: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; choose one with: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --requirement requirements.txt
	@touch $@

# So that the pages of `dvc plots` work offline.
.dvc/vega.js: $(VENV)/.installed requirements-plots.txt pipeline/vega.py
	"$(BIN)/python" -m pip install --requirement requirements-plots.txt
	"$(BIN)/python" -m pipeline.vega

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt requirements-plots.txt
	"$(BIN)/python" -m pip install --requirement requirements-dev.txt
	@touch $@

$(VENV)/.chromium: $(VENV)/.installed-dev tests/chromium.py
	"$(BIN)/python" -m tests.chromium
	@touch $@
