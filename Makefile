# One command each. `make` alone lists them.
SHELL  := bash
.SHELLFLAGS := -eo pipefail -c
PYTHON ?= python3
VENV   := .venv
ORACLE := .venv-oracle
BIN    := $(VENV)/bin
PIP    := -m pip --disable-pip-version-check --require-virtualenv

.DEFAULT_GOAL := help
.PHONY: help env oracle

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

env: $(VENV)/.installed  ## create .venv with everything that the book and its tests need

$(VENV)/.installed: requirements.txt requirements-dev.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, $(PYTHON) is {sys.version.split()[0]}: try make PYTHON=python3.12")'
	@echo "==> Installing into $(VENV) (once; a few minutes)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --progress-bar off -r requirements-dev.txt -c constraints.txt | sed '/already satisfied/d'
	$(BIN)/python $(PIP) check
	@touch $@

oracle: $(ORACLE)/.installed  ## create .venv-oracle with PyTorch and Hugging Face, the implementations we check against

# torch goes first: any other order may pull in a newer, larger build of it.
$(ORACLE)/.installed: requirements-oracle.txt constraints.txt
	@echo "==> Installing into $(ORACLE) (once; PyTorch is large)"
	$(PYTHON) -m venv $(ORACLE)
	$(ORACLE)/bin/python $(PIP) install --progress-bar off $$(grep '^torch==' requirements-oracle.txt) -c constraints.txt | sed '/already satisfied/d'
	$(ORACLE)/bin/python $(PIP) install --progress-bar off -r requirements-oracle.txt -c constraints.txt | sed '/already satisfied/d'
	$(ORACLE)/bin/python $(PIP) check
	@touch $@
