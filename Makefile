# Every target sets up what it needs: a virtual environment in .venv with the project and its dependencies.
#   make quickstart   search the merges of four small experts, see the front, learn what to type next
#   make fast         unit and contract tests, for every save
#   make test         linter, type checker, and all tests except those of `make slow`
#   make slow         real Ray clusters with killed workers, nodes and drivers: half an hour
#   make docs         the documentation as a site in build/site, warnings being errors
#   make browser      what the report's tests need beside Python: Chromium and Java (as root, by apt)
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
RUN ?= runs/quickstart

.PHONY: quickstart fast test slow lint docs pictures browser clean

quickstart: $(VENV)/.ready
	@if [ -e $(RUN)/archive.sqlite ]; then $(BIN)/evomerge resume $(RUN); \
	else $(BIN)/evomerge search search_spaces/quickstart.yaml --out $(RUN); fi

fast: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not ray and not chaos'

test: $(VENV)/.ready-dev lint browser
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m chaos tests/chaos -s

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.ready-dev
	$(BIN)/python -m mkdocs build --strict
	@echo "open build/site/index.html"

# The report's pictures in docs/pictures/, made anew by the browser's tests.
pictures: $(VENV)/.ready-dev browser
	-$(BIN)/python -m pytest tests/reports/test_browser.py -k pictures
	cp build/report/report_two.png build/report/report_four.png docs/pictures/

# Chromium and Java, for the tests of the HTML report; they are skipped, with the reason, where these are missing.
browser:
	@command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null 2>&1 \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing Chromium" && (apt-get update -qq; \
	     DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium) >/dev/null 2>&1; } \
	|| echo "no Chromium: the report's browser tests will be skipped"
	@command -v java >/dev/null 2>&1 \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing Java" && \
	     DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends default-jre-headless >/dev/null 2>&1; } \
	|| echo "no Java: the HTML validator will be skipped"

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
