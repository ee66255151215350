# Shortcuts, nothing else: what runs is listed in requirements*.in, the tools are set up in
# pyproject.toml. ARGS goes through to the command: make test ARGS="-k token".

VENV := .venv
BIN := $(VENV)/bin
SDKS := tests/sdk/node_modules
AUDIT := .venv-audit
# The first of these that is new enough makes the virtual environment.
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--custom-compile-command "make lock"

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help install run test sdks matrix money attack faults bench soak grow admin-demo check fix lock sbom audit clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

install: $(VENV)/.runtime ## install what runs, and the embedded store

run: $(VENV)/.runtime ## start the server on http://127.0.0.1:8000; needs no Redis and no key
	@$(BIN)/python server.py $(ARGS)

test: $(VENV)/.dev ## run the tests
	@.ci/tools
	@$(MAKE) sdks
	@$(BIN)/python -m pytest $(ARGS)

# After .ci/tools, which may bring npm; where there is none, it said so.
sdks:
	@! command -v npm >/dev/null || $(MAKE) --silent $(SDKS)/.installed

matrix: $(VENV)/.dev ## try every SDK in every situation, and print the table of the README
	@.ci/tools
	@$(MAKE) sdks
	@$(BIN)/python -m pytest tests/sdk/test_matrix.py $(ARGS)

money: $(VENV)/.dev ## race thousands of turns for a small budget (ARGS="--seeds 3 --first 7")
	@.ci/tools
	@$(BIN)/python -m bench.money $(ARGS)

faults: $(VENV)/.dev ## break Redis, clients, workers and clocks, and print the figures (ARGS="-k failover")
	@.ci/tools
	@$(BIN)/python -m bench.faults $(ARGS)

attack: $(VENV)/.dev ## attack a live server by hundreds of cases (ARGS="--only replay", --list)
	@.ci/tools
	@$(BIN)/python -m attacks $(ARGS)

bench: $(VENV)/.dev ## measure beside other proxies (ARGS="--peers --write", "--rounds 1 --only cpu")
	@.ci/tools
	@$(BIN)/python -m bench.speed $(ARGS)

soak: $(VENV)/.dev ## look for an hour whether a worker grows (ARGS="--minutes 5")
	@.ci/tools
	@$(BIN)/python -m bench.soak $(ARGS)

grow: $(VENV)/.dev ## measure what so many chats a day need (ARGS=--write, ARGS="--chats 1000000")
	@.ci/tools
	@$(BIN)/python -m bench.grow $(ARGS)

admin-demo: $(VENV)/.runtime ## show the operator's page with visitors who come and go (ARGS="--minutes 3")
	@$(BIN)/python -m bench.admin_demo $(ARGS)

check: $(VENV)/.dev ## lint, formatting, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

fix: $(VENV)/.dev ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: $(VENV)/.dev ## write requirements*.txt anew from requirements*.in (ARGS=--upgrade)
	$(LOCK) $(ARGS) --output-file requirements.txt requirements.in
	$(LOCK) $(ARGS) --output-file requirements-embedded.txt requirements-embedded.in
	$(LOCK) $(ARGS) --output-file requirements-otel.txt requirements-otel.in
	$(LOCK) $(ARGS) --output-file requirements-dev.txt requirements-dev.in
	$(LOCK) $(ARGS) --output-file requirements-audit.txt requirements-audit.in

# What production installs, alone, so that nothing else is taken for a part of it.
sbom: $(AUDIT)/.made $(VENV)/.made ## write docs/sbom.json: what production installs, with licences
	rm -rf $(AUDIT)/runtime
	$(BIN)/python -m venv --without-pip $(AUDIT)/runtime
	$(BIN)/python -m pip --python $(AUDIT)/runtime/bin/python install --quiet \
		--disable-pip-version-check --require-hashes -r requirements.txt
	$(AUDIT)/bin/cyclonedx-py environment --output-reproducible --output-format JSON \
		$(AUDIT)/runtime/bin/python | $(BIN)/python .ci/plain-sbom >docs/sbom.json

audit: $(AUDIT)/.made ## ask a vulnerability service about all that is locked
	@for lock in requirements requirements-embedded requirements-otel; do \
	  $(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes -r $$lock.txt $(ARGS) || exit 1; \
	done

clean: ## remove .venv, the SDKs of the tests and all caches; .env and .keyturn stay
	rm -rf $(VENV) $(AUDIT) $(SDKS) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

# The stamps: a second make does nothing.
$(VENV)/.made:
	@if $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null && $(BIN)/python -m pip --version >/dev/null 2>&1; \
	then touch $@; exit 0; fi; \
	for python in $(PYTHON); do \
	  "$$python" -c '$(NEW_ENOUGH)' 2>/dev/null || continue; \
	  "$$python" -m venv --clear $(VENV) && touch $@ && exit 0; \
	  echo "$$python cannot make a virtual environment (Debian: apt-get install python3-venv)" >&2; \
	  exit 1; \
	done; \
	echo "Keyturn needs Python 3.11 or newer, and found:" >&2; \
	for python in $(PYTHON); do echo "  $$python: $$("$$python" --version 2>&1 | head -n 1)" >&2; done; \
	echo "Install a newer one, or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1

$(VENV)/.runtime: $(VENV)/.made requirements.txt requirements-embedded.txt
	$(PIP) -r requirements.txt -r requirements-embedded.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@

$(SDKS)/.installed: tests/sdk/package-lock.json
	@npm ci --ignore-scripts --prefix tests/sdk >/dev/null
	@touch $@

$(AUDIT)/.made: $(VENV)/.made requirements-audit.txt
	$(BIN)/python -m venv --clear $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements-audit.txt
	@touch $@
