# Everything a newcomer needs: `make run` and `make test`; `make help` lists the rest.
# Distributions build their interpreter with profile-guided optimization: worth a quarter of the CPU (docs/performance.md).
PYTHON ?= $(shell /usr/bin/python3.11 -c "import ensurepip, venv" 2>/dev/null && echo /usr/bin/python3.11 || echo python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CLIENT := clients/python

.DEFAULT_GOAL := help
.PHONY: help install run test lint types contracts coverage rest check bench lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 14

install: $(STAMP) ## make .venv from the lock file (hashes checked)

$(STAMP): requirements.lock pyproject.toml $(CLIENT)/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable $(CLIENT)
	$(BIN)/python -m pip check --quiet
	@touch $(STAMP)

run: install ## start ringwheel on embedded Postgres, with a demo
	@exec $(BIN)/ringwheel dev

test: install ## the whole test suite
	$(BIN)/python -m pytest -n 4 --dist worksteal

lint: install ## ruff: style, bugs, async bans
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install ## mypy, strict
	$(BIN)/mypy
	cd $(CLIENT) && "$(CURDIR)/$(BIN)/mypy"

coverage: install ## every branch of the core is tested
	$(BIN)/python -m pytest -q -n 2 tests/actors/core --cov=actors/core --cov-branch --cov-report=term:skip-covered --cov-fail-under=100

contracts: install ## import-linter: who may import whom
	$(BIN)/lint-imports

rest: install ## the tests that `coverage` has not run
	$(BIN)/python -m pytest -n 4 --dist worksteal --ignore=tests/actors/core

check: lint types contracts coverage rest ## all that a commit must pass

bench: install ## every benchmark, each beside its floor
	$(BIN)/python -m bench all

lock: ## renew requirements.lock from pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); \
	  open("$(VENV)/runtime.in", "w").write("\n".join(p["project"]["dependencies"])); \
	  open("$(VENV)/dev.in", "w").write("\n".join(p["dependency-groups"]["dev"]))'
	cp requirements.lock $(VENV)/
	cd $(VENV) && bin/pip-compile --quiet --no-header --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --output-file requirements.lock runtime.in dev.in
	(head -1 requirements.lock; cat $(VENV)/requirements.lock) > $(VENV)/whole.lock && mv $(VENV)/whole.lock requirements.lock

clean: ## remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache htmlcov .coverage*
