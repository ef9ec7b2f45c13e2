# On a fresh machine with git, make and Python 3.11, every target sets up what it needs.
PYTHON ?= python3.11
VENV ?= .venv
export PATH := $(abspath $(VENV))/bin:$(PATH)
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help env repro test twice check format readme

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

env: $(READY) ## make the environment in .venv

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.txt
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

repro: $(READY) ## data, models, editors, evaluation and report: whatever is not up to date
	errata params
	errata repro

# One thread each; files that share what they make stay together, the graph's (minutes) first.
test: $(READY) ## every test, in a process per core
	OMP_NUM_THREADS=1 python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The folder with the outcome tables of the record's suite and study.
RESULTS = python -c 'from pipeline.config import read_params; p = read_params(); print("data", p["suite"], p["study"], sep="/")'

twice: $(READY) ## run the graph twice and compare the outcome tables, byte for byte
	dvc repro --force
	@mkdir -p .errata
	@folder=$$($(RESULTS)) && sha256sum "$$folder"/*/outcomes.parquet > .errata/first.sha256
	dvc repro --force
	sha256sum --check --strict .errata/first.sha256

check: $(READY) ## format, lint and types
	ruff format --check .
	ruff check .
	mypy

format: $(READY) ## put the code in the one format
	ruff format .
	ruff check --fix .

readme: $(READY) ## write the results table of README.md from reports/
	errata readme
