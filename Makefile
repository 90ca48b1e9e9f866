# The verbs of the project. `make help` lists them.
PYTHON ?= python3
PORT ?= 8000
DATA_DIR ?= var
MODEL ?=
# Tests run in as many processes as there are cores; the browser journey starts its own.
TEST_PROCESSES ?= auto
# How long each of the two storms of `make storm` rages.
STORM_SECONDS ?= 300

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help setup run check test bench storm format clean

help: ## List the verbs
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1|/' | column -t -s '|'

setup: $(STAMP) ## Make .venv with all that running, tests and benchmarks need

# torch comes first and alone, pinned, so that no other package pulls a different build of it.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Preferably needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Set PYTHON=..."; exit 1; }
	@echo "Making the environment in $(VENV), once; this takes a minute or more."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade 'pip>=25.1'
	@$(PIP) -c constraints.txt torch==2.13.0
	@$(PIP) -c constraints.txt -e '.[worker]' --group lint --group test
	@touch $@

run: setup ## Run the web app and a model worker here: make run PORT=8000 DATA_DIR=var MODEL=/path/to/checkpoint
	@$(BIN)/preferably up --port $(PORT) --data-dir '$(DATA_DIR)' $(if $(MODEL),--checkpoint '$(MODEL)')

check: setup ## Lint, types, architecture, migrations, templates
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n0 tests/architecture

test: check ## Everything: the gate, then all tests on SQLite and PostgreSQL, and the browser journey
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadgroup --ignore tests/architecture

bench: setup ## Run every benchmark, each in its quick form
	@for file in benchmarks/[a-z]*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py) --quick || exit 1; done

storm: setup ## Kill, freeze and cut off processes while they sample, for long: make storm STORM_SECONDS=300
	@for database in sqlite postgresql; do \
		$(BIN)/python -m benchmarks.storm --database $$database --seconds $(STORM_SECONDS) || exit 1; done

format: setup ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## Remove the environment and caches; data in var/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
