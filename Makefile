# `make demo` and `make test` each need nothing but Python 3.11, make and a package index.
PYTHON ?= python3.11
VENV := .venv
CONSTRAINTS := constraints-3.11.txt

# `make test SNOWML=1.54`: with another snowflake-ml-python, in a virtual environment of its own. Only the tests
# that it takes part in, and none of a whole Airflow, which takes long and does not differ.
SNOWML ?=
ifneq ($(SNOWML),)
VENV := .venv-snowml-$(SNOWML)
DIFFERENT := constraints-snowml-$(SNOWML).txt
SELECTED := -m "snowflake_ml and not whole_airflow"
endif

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What the user's shell says about Airflow, Snowflake or Python's path is not ours to inherit.
CLEAN := env -u PYTHONPATH -u PYTHONHOME -u VIRTUAL_ENV $(shell env | sed -n 's/^\(\(AIRFLOW\|SNOWFLAKE\)_*[A-Za-z0-9_]*\)=.*/-u \1/p')

.DEFAULT_GOAL := help
.PHONY: help install demo up down env test chaos fuzz verify bench docs pictures lint format clean

help: ## Say what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

install: $(STAMP) ## Create .venv and install into it, unless that is done

$(STAMP): pyproject.toml $(CONSTRAINTS) $(DIFFERENT)
	@echo "Installing into $(VENV): takes a few minutes, once"
	$(CLEAN) $(PYTHON) -m venv $(VENV)
	@awk -F== 'NR == FNR { first[$$1] } NR == FNR || !($$1 in first)' $(DIFFERENT) $(CONSTRAINTS) > $(VENV)/constraints.txt
	$(CLEAN) $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## Load flights, retrain twice, score seven days, serve: real Airflow, local Snowflake
	$(CLEAN) $(BIN)/python scripts/demo.py

up: $(STAMP) ## Start an Airflow and a local Snowflake that stay, and say how to get in
	@$(CLEAN) $(BIN)/python scripts/up.py up

down: ## End what `make up` started; its data stay
	@if [ -x $(BIN)/python ]; then $(CLEAN) $(BIN)/python scripts/up.py down; else echo "Nothing runs."; fi

env: ## Write the secrets of docker-compose.yaml into .env, unless it is there
	@$(PYTHON) scripts/write_env.py

# Three workers, each with a local Snowflake of its own: most tests wait more than they compute.
PYTEST_ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder

test: $(STAMP) ## Run the tests; SNOWML=1.54 with the last snowflake-ml-python 1.x
	$(CLEAN) $(BIN)/python -m pytest $(PYTEST_ARGS) $(SELECTED)

chaos: $(STAMP) ## Kill every operator at every request it sends, and try again; CHAOS_ARGS=--mutations without the protections
	$(CLEAN) $(BIN)/python tests/chaos/matrix.py $(CHAOS_ARGS)

FUZZ_TEXTS ?= 430

fuzz: $(STAMP) ## Try 10,000 texts in the operators' template fields; FUZZ_TEXTS=20 for each operator
	$(CLEAN) FUZZ_TEXTS=$(FUZZ_TEXTS) $(BIN)/python -m pytest -s --timeout 7200 tests/fuzz

# The connection is the user's own, so Airflow's variables stay; it holds secrets, so it is not printed.
verify: $(STAMP) ## Try what we believe of Snowflake on a real account: CONN=<Airflow connection> POOL=<compute pool>
	@CONN="$${CONN:-}" POOL="$${POOL:-}" env -u PYTHONPATH -u PYTHONHOME $(BIN)/python -W ignore -m verify $(VERIFY_ARGS)

# In a virtual environment of its own: other providers, to compare with, would be in the way of the tests.
BENCH_VENV := .venv-bench

bench: $(BENCH_VENV)/.installed ## Measure what it costs, and write the tables of docs/benchmarks.md
	$(CLEAN) $(BENCH_VENV)/bin/python -W ignore -m benchmarks $(BENCH_ARGS)

$(BENCH_VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(CLEAN) $(PYTHON) -m venv $(BENCH_VENV)
	$(CLEAN) $(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[dev,bench]'
	@touch $@

docs: $(STAMP) ## Build the documentation into docs/_build; a warning is an error
	$(CLEAN) $(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet docs docs/_build
	@echo "docs/_build/index.html"

pictures: $(STAMP) ## Run the examples, and take the pictures of them anew; needs chromium and chromedriver
	$(CLEAN) $(BIN)/python scripts/pictures.py

lint: $(STAMP) ## ruff, mypy --strict, and the direction of the imports
	$(CLEAN) $(BIN)/ruff check .
	$(CLEAN) $(BIN)/ruff format --check .
	$(CLEAN) $(BIN)/mypy --strict airflow_provider_snowml
	$(CLEAN) $(BIN)/lint-imports

format: $(STAMP) ## Format the code
	$(CLEAN) $(BIN)/ruff check --fix .
	$(CLEAN) $(BIN)/ruff format .

clean: ## Remove the virtual environments and what the tools cached
	rm -rf .venv .venv-snowml-* $(BENCH_VENV) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
