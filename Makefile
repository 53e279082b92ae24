# Every target sets up what it needs: Python 3.10 or newer and make are enough.
VENV   ?= .venv
PYTHON ?= python3
# LOCK=requirements.lock installs exactly that, by hash, as CI does; else the newest that pyproject.toml allows.
LOCK   ?=
EXTRAS ?= dev
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready

.PHONY: help demo test test-fast test-accelerator test-zoo packages check tensorboard benchmark fork lock clean

help:                     ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY)            ## train the lesson's runs and compare them
	$(BIN)/unstall demo

test: $(READY)            ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -q

test-fast: $(READY)       ## without the slow ones, which train in full or start processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -q -m 'not slow'

test-accelerator: $(READY) ## what needs a GPU or another accelerator, on the one that is there
	$(BIN)/python -m pytest -q -m accelerator

# In an environment of its own: these packages have many requirements, and some hold others back.
test-zoo:                 ## real packages' modules through every instrument, and the table of docs/packages.md
	@$(MAKE) --no-print-directory VENV=$(VENV)-zoo EXTRAS=dev,zoo LOCK= packages

packages: $(READY)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/packages --rows=benchmarks/data/packages.jsonl -q
	$(BIN)/python benchmarks/package_table.py

check: $(READY)           ## ruff and mypy
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

PORT ?= 6006
tensorboard: $(READY)     ## look at all runs in logs/
	@echo 'Open http://localhost:$(PORT)/?smoothing=0#custom_scalars&_smoothingWeight=0'
	$(BIN)/python -m tensorboard.main --logdir logs --port $(PORT)

benchmark: $(READY)       ## how fast it is, beside what people would use instead
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[benchmark]' || true
	$(BIN)/python benchmarks/throughput.py

# From where this was cloned, so that `copier update` finds what is new there; FROM=$PWD takes this clone as it is.
FROM ?= $(or $(shell git remote get-url origin 2> /dev/null),$(CURDIR))
fork: $(READY)            ## a project of your own: make fork TO=../galaxies
	@test -n '$(TO)' || { echo 'TO: give the folder of your project: make fork TO=../galaxies' >&2; exit 2; }
	$(BIN)/python -m copier copy --trust $(FROM) $(TO)

lock: $(READY)            ## write requirements.lock anew, with the newest that pyproject.toml allows
	@uv=$$(command -v uv) || { $(BIN)/python -m pip install -q --disable-pip-version-check uv && uv=$(BIN)/uv; }; \
	echo '# Made by `make lock` from pyproject.toml: what CI installs, by hash. Not to be edited.' > requirements.new && \
	$$uv pip compile -q --upgrade --universal --python-version 3.10 --extra dev --generate-hashes --no-header \
	  --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml >> requirements.new && \
	mv requirements.new requirements.lock || { rm -f requirements.new; exit 1; }

clean:                    ## remove the environment, not the data or the runs
	rm -rf $(VENV) $(VENV)-zoo .mypy_cache .ruff_cache .pytest_cache

# uv where it is installed, else what Python brings.
$(READY): pyproject.toml $(LOCK)
	@if command -v uv > /dev/null; then \
	  echo "Installing into $(VENV) with uv ..." && uv venv -q --allow-existing $(VENV) && \
	  install="uv pip install -q --python $(BIN)/python"; \
	else \
	  echo "Installing into $(VENV) with pip; torch is large, this takes a few minutes ..." && \
	  $(PYTHON) -m venv $(VENV) && install="$(BIN)/python -m pip install -q --disable-pip-version-check"; \
	fi && { test -z '$(LOCK)' || $$install -r $(LOCK); } && $$install $(if $(LOCK),--no-deps) -e '.[$(EXTRAS)]'
	@touch $@
