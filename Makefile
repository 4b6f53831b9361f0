# What a newcomer calls: `make run`, `make test`. What a contributor calls before a commit: `make check`.
# All are idempotent: what is installed already is not installed again.

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# In how many processes the tests run; 0: in pytest's own, as for --pdb.
JOBS ?= 2
# As after `activate`, so that a job finds this environment's python whatever else is active.
ACTIVE := VIRTUAL_ENV="$(abspath $(VENV))" PATH="$(abspath $(BIN)):$$PATH"
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: help run test check audit format bench clean

help:
	@echo "make run     install into $(VENV), take a census, train a small model, print the waterfall"
	@echo "make test    install what the tests need, and run them"
	@echo "make check   lint, types, floors, known holes: what CI and pre-commit run"
	@echo "make audit   ask which of the pinned versions have known holes; needs the network"
	@echo "make format  format the code"
	@echo "make bench   run the benchmarks that need no trace, in their quick form"
	@echo "make clean   remove $(VENV)"

run: $(VENV)/.for-run
	$(ACTIVE) artesian run examples/first-run.yaml

test: $(VENV)/.for-test
	@scripts/services.sh
	$(ACTIVE) pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.for-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -c pyproject.toml -r src scripts
	@scripts/audit.sh $(BIN)/pip-audit

# As in `check`, but it fails where the service on the network that knows the holes cannot be asked about all.
audit: $(VENV)/.for-test
	$(BIN)/pip-audit --strict -r constraints.txt --no-deps --disable-pip

format: $(VENV)/.for-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.for-test
	$(ACTIVE) python benchmarks/startup.py --quick
	$(ACTIVE) python benchmarks/journal.py --quick

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: artesian needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo missing)" >&2; \
	  echo "hint: install it, and name it: make PYTHON=python3.12 run" >&2; exit 1; }
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: '$(PYTHON) -m venv' does not work" >&2; \
	  echo "hint: on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.for-run: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing artesian and torch (the first time: a few minutes) ..."
	$(INSTALL) -e '.[train]'
	@touch $@

$(VENV)/.for-test: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing artesian, torch and what the tests need ..."
	$(INSTALL) -e '.[train,plot,solver,server,postgres,ray,storage,dev]'
	@touch $@ $(VENV)/.for-run

clean:
	rm -rf $(VENV)
