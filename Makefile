# Every target sets up what it needs: Python 3.10 or newer and make are enough.
VENV   ?= .venv
PYTHON ?= python3
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready

.PHONY: demo test test-fast check tensorboard benchmark clean

demo: $(READY)            ## train the lesson's runs and compare them
	$(BIN)/unstall demo

test: $(READY)            ## all tests; real MNIST is fetched once
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -q

test-fast: $(READY)       ## without those that train on real MNIST or start processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -q -m 'not slow'

check: $(READY)           ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

tensorboard: $(READY)     ## look at all runs in logs/
	$(BIN)/tensorboard --logdir logs

benchmark: $(READY)       ## how fast it is, beside what people would use instead
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[benchmark]' || true
	$(BIN)/python benchmarks/throughput.py

clean:                    ## remove the environment, not the data or the runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

# uv where it is installed, else what Python brings.
$(READY): pyproject.toml
	@if command -v uv > /dev/null; then \
	  echo "Installing into $(VENV) with uv ..." && uv venv -q --allow-existing $(VENV) && \
	  uv pip install -q --python $(BIN)/python -e '.[dev]'; \
	else \
	  echo "Installing into $(VENV) with pip; torch is large, this takes a few minutes ..." && \
	  $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $@
