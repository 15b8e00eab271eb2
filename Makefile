# The commands that `make help` lists. run.py does the work; it reads VENV and TORCH from the environment.
PYTHON ?= python3

# -E: ignore PYTHONHOME and similar variables, which may be set for another installation.
RUN := $(PYTHON) -E run.py

# Two commands (make -j2 repro test) must not install packages in .venv at the same time.
.NOTPARALLEL:

.PHONY: help setup repro verify test test-slow smoke report hooks seeds sweep bench grow
help: ; @$(RUN) help
setup: ; @exec $(RUN) setup
repro: ; @exec $(RUN) repro
verify: ; @exec $(RUN) verify
test: ; @exec $(RUN) test
test-slow: ; @exec $(RUN) test-slow
smoke: ; @exec $(RUN) smoke
report: ; @exec $(RUN) report $(BASE)
hooks: ; @exec $(RUN) hooks
seeds: ; @exec $(RUN) seeds $(SEEDS_OPTIONS)
sweep: ; @exec $(RUN) sweep $(SWEEP_OPTIONS)
bench: ; @exec $(RUN) bench $(BENCH_OPTIONS)
grow: ; @exec $(RUN) grow $(GROW_OPTIONS)
