# Every target sets up what it needs: a virtual environment in .venv with the project and its dependencies.
#   make quickstart   search the merges of four small experts, see the front, learn what to type next
#   make test         linter, type checker, and all tests
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
RUN ?= runs/quickstart

.PHONY: quickstart test lint clean

quickstart: $(VENV)/.ready
	@if [ -e $(RUN)/archive.sqlite ]; then $(BIN)/evomerge resume $(RUN); \
	else $(BIN)/evomerge search search_spaces/quickstart.yaml --out $(RUN); fi

test: $(VENV)/.ready-dev lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "evomerge needs Python 3.10 or newer, found " + sys.version.split()[0] + "; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	@touch $@

$(VENV)/.ready-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.ready

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
