# The commands of the README; run.py does the work. It reads VENV and TORCH from the environment.
PYTHON ?= python3

# -E: whatever PYTHONHOME and the like say for another setup.
RUN := $(PYTHON) -E run.py

# Two pips must not install into .venv at once (make -j2 repro test).
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
