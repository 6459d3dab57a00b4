# Everything runs in .venv; `make setup` fills it once from pyproject.toml under the pins of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where torch comes from, e.g. TORCH_INDEX=https://download.pytorch.org/whl/cpu for a CPU-only build.
TORCH_INDEX ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiled modules are kept, whatever the shell says: sweeps and tests start a process for every cell.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup sweep test test-slow check docs train bench fuzz regress baseline clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch torchvision
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)

sweep: setup
	$(BIN)/pardec sweep quick

test: setup
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m 'not slow'

test-slow: setup
	$(BIN)/python -m pytest -q -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Figures in README and docs are made from recorded rows, then the pages are built into site/.
docs: setup
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/python docs/figures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# What networks learn from: fashion (downloaded), or idx:DIR (its files in a folder).
DATA ?= fashion

train: setup
	$(BIN)/pardec train --all --data $(DATA)

bench: setup
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only -q

# Inputs that every test of tests/fuzz tries, and every coverage-guided target runs.
FUZZ ?= 20000

fuzz: setup
	$(BIN)/pip install --quiet -c constraints.txt -e '.[fuzz]'
	$(BIN)/python -m pytest -q tests/fuzz --fuzz-examples $(FUZZ)
	for target in $$($(BIN)/python -m tests.fuzz); do $(BIN)/python -m tests.fuzz $$target -runs=$(FUZZ) || exit 1; done

regress: setup
	$(BIN)/pardec regress

baseline: setup
	$(BIN)/pardec baseline

clean:
	rm -rf $(VENV) build site *.egg-info
