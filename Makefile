# One command each. `make` alone lists them.
SHELL  := bash
PYTHON ?= python3
VENV   := .venv
ORACLE := .venv-oracle
BIN    := $(VENV)/bin
PIP    := -m pip --disable-pip-version-check --require-virtualenv
# Behind a command: without pip's lines about what is there, but with its exit code. (The make of
# macOS knows no .SHELLFLAGS, which could ask for that in one place.)
QUIETLY := > >(sed '/already satisfied/d')
# Where a path holds a space, what pip installs starts through a line of sh, in which these signs mean
# something else; Python itself says which path it makes no environment in.
STARTS := case "$$PWD" in *[\"\$$\`\\]*) echo "The path of this folder holds a quotation mark, a dollar sign, a backquote or a backslash. Commands that are installed in it may not start, or start others: give the folder another name." >&2; exit 1;; esac

# Under an ASCII locale, too: folders may have an umlaut in their names.
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.PHONY: help env oracle hooks book serve notebooks test lint unit nbval site coverage mutants pretrain experiments experiments-family replicate smollm2 experiments-smollm2 distributed bench bench-checkpoints bench-browser zip pdf colab vendor constraints matrix links lab clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 28

env: $(VENV)/.installed  ## create .venv with everything that the book and its tests need

$(VENV)/.installed: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, $(PYTHON) is {sys.version.split()[0]}: try make PYTHON=python3.12")'
	@echo "==> Installing into $(VENV) (once; a few minutes)"
	@$(STARTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) install --progress-bar off --require-hashes -r requirements-dev.lock $(QUIETLY)
	$(BIN)/python $(PIP) check
	@touch $@

oracle: $(ORACLE)/.installed  ## create .venv-oracle with PyTorch and Hugging Face, the implementations we check against

# Given hashes, pip takes PyTorch's build for graphics cards even where the one for processors lies
# ready, which is gigabytes smaller. So pip first chooses without hashes, and the file is compared.
$(ORACLE)/.installed: requirements-oracle.lock requirements-cards.lock
	@echo "==> Installing into $(ORACLE) (once; PyTorch is large)"
	@$(STARTS)
	$(PYTHON) -m venv $(ORACLE)
	@rm -rf $(ORACLE)/torch
	$(ORACLE)/bin/python $(PIP) download --progress-bar off --no-deps --only-binary :all: --dest $(ORACLE)/torch $$(grep ^torch requirements-oracle.txt)
	@$(ORACLE)/bin/python $(PIP) hash $(ORACLE)/torch/*.whl | grep -o 'sha256:.*' | grep -qFf - requirements-oracle.lock \
		|| { echo "PyTorch's file is none of those in requirements-oracle.lock: is the package index what it should be?"; exit 1; }
	$(ORACLE)/bin/python $(PIP) install --no-deps $(ORACLE)/torch/*.whl
	$(ORACLE)/bin/python $(PIP) install --progress-bar off --require-hashes --no-deps -r requirements-oracle.lock $(QUIETLY)
	$(ORACLE)/bin/python $(PIP) check >/dev/null \
		|| $(ORACLE)/bin/python $(PIP) install --progress-bar off --require-hashes --no-deps -r requirements-cards.lock
	$(ORACLE)/bin/python $(PIP) check
	@rm -r $(ORACLE)/torch
	@touch $@

hooks: env  ## install the git hooks: what `make lint` finds, before each commit
	@$(BIN)/pre-commit install

book: env  ## run every notebook and build the book into _build/html
	@$(BIN)/python tools/build_book.py

serve: book  ## build the book and serve it on http://localhost:8000
	@echo "Serving on http://localhost:8000 (stop with Ctrl-C)"
	@$(BIN)/python -m http.server 8000 --bind 127.0.0.1 --directory _build/html

zip: book  ## pack the built book, Python in the browser included, into _build/peft-book.zip
	@$(BIN)/python tools/zip_book.py

pdf: book  ## print the built book into one PDF, _build/peft-book.pdf (needs Chromium)
	@$(BIN)/python tools/pdf.py

lab: env  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab book

notebooks: env  ## run the notebooks in place, to commit them with fresh outputs
	@$(BIN)/python tools/notebooks.py

ifdef FAST
test: lint
	@$(BIN)/python tools/touched.py
else
test: lint unit nbval site  ## run everything: lint, unit tests, notebooks, the build, the built book (FAST=1: what a change touches)
	@echo "==> All of it passed."
endif

# Two tests run side by side, each with a core: the threads of four would wait for each other, and
# a notebook that trains took up to ten times as long.
unit nbval site: export OMP_NUM_THREADS := 1
# A bar that only a slow machine shows is no output of a cell.
nbval: export TQDM_DISABLE := 1

lint: env
	@echo "==> Lint"
	@$(BIN)/ruff check .
	@$(BIN)/python tools/constraints.py --check
	@$(BIN)/python tools/vendor.py --check
	@$(BIN)/python tools/notebooks.py --check
	@$(BIN)/python tools/prose.py
	@$(BIN)/python tools/links.py
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/zizmor --offline --quiet .github
	@$(BIN)/shellcheck .ci/run

unit: env
	@echo "==> Unit tests"
	@$(BIN)/python -m pytest code/stage-09/tests -n 2 --dist loadgroup

nbval: env
	@echo "==> Notebooks: every committed output is what the code gives today"
	@$(BIN)/python -m pytest -p keep_outputs --nbval book -n 2 --dist loadfile

site: book  ## test the built book in browsers (LONG=1: the notebooks that take minutes there, too)
	@echo "==> The built book"
	@# On a busy machine a browser now and then loses a race: what failed is asked once more, and named.
	@LONG=$(LONG) $(BIN)/python -m pytest tests -n 2 --dist worksteal --durations 15 --reruns 1 -rR

# Each of these modules is to be covered by itself, not only all together.
COVERED := peft llama training checks real_models/accounting real_models/reading real_models/rules real_models/memory real_models/bases real_models/serving real_models/hub exercises/harness/checking exercises/harness/run exercises/harness/compare exercises/harness/contract exercises/harness/report $(patsubst code/stage-09/%.py,%,$(wildcard code/stage-09/exercises/ex*/checks.py))
COVERAGE_TESTS := peft algebra stress llama training accounting bases serving hub checking mistakes answers checks_ex1 checks_ex2 checks_ex3 checks_ex4 checks_ex5 checks_ex6 checks_ex7 checks_ex8

coverage: env  ## lines and branches that the tests reach; fails below 95 % of any module
	@mkdir -p _build/coverage
	@$(BIN)/python -m coverage run -m pytest -q $(foreach name,$(COVERAGE_TESTS),$(wildcard code/stage-09/tests/test_$(name).py code/stage-09/tests/*/test_$(name).py)) -k "not can_be_made_again"
	@$(BIN)/python -m coverage report
	@for module in $(COVERED); do $(BIN)/python -m coverage report --include "*/$$module.py" --fail-under 95 >/dev/null \
		|| { echo "$$module.py: below 95 %, see the table above; add a test for what is missing"; exit 1; }; done
	@echo "==> Each module's branch coverage is at least 95 %."

mutants: env  ## break the code in one place at a time; 95 % must be noticed (MODULE=peft.py SAMPLE=200)
	@$(BIN)/python -u tools/mutants.py $(MODULE) $(if $(SAMPLE),--sample $(SAMPLE))

pretrain: env  ## train the small base model again from nothing (writes code/stage-09/data/base)
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.pretrain

experiments: env  ## run every experiment of section 9.7 and the runs with a fault again from nothing (under 90 minutes on 2 cores)
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.small_llama run --fresh
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.small_llama timing
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.small_llama table
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.update
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.faults run --fresh

experiments-family: env  ## compare the family of methods: every run that is not recorded yet (half an hour from nothing)
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.family run

replicate: env  ## ask the claims of section 9.7 and of the family's page of five other seeds; resumes, half an hour from nothing, and with the speaking model two hours more
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.replicate
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.family run --seeds 5 6 7 8 9
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.family claims
	@if [ -e .cache/smollm2/SmolLM2-135M-Instruct/config.json ]; then cd code/stage-09 && ../../$(BIN)/python -m experiments.family_speaking run --seeds 10 11 12 13 14; else echo "The speaking model is not here (make smollm2): its claims are asked of the runs that are recorded"; fi
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.family_speaking claims

distributed: env oracle  ## train on 1, 2 and 4 processes (DDP, FSDP2), killed and resumed too
	@$(BIN)/python -m pytest code/stage-09/tests/real_models/test_distributed.py -v

smollm2: env  ## fetch a real language model of 135 million parameters (93 MB, once)
	@cd code/stage-09 && ../../$(BIN)/python -m real_models.smollm2 --fetch

experiments-smollm2: smollm2  ## teach it schedules, orders and desks: every run that is not recorded yet
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.smollm2_update
	@cd code/stage-09 && ../../$(BIN)/python -m exercises.ex6_qlora.speaking --train
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.smollm2 run
	@cd code/stage-09 && ../../$(BIN)/python -m experiments.family_speaking run
	@cd code/stage-09 && ../../$(BIN)/python -m exercises.ex6_qlora.speaking

bench: env oracle  ## time everything beside PyTorch and Hugging Face; rewrites the page on speed
	@for name in layers latency speaking small_llama nf4 growth; do $(BIN)/python benchmarks/$$name.py || exit; done
	@$(BIN)/python tools/notebooks.py book/how-fast-it-is.ipynb

bench-checkpoints: env oracle  ## time and memory of checkpoints up to a billion weights (needs 7 GB)
	@$(BIN)/python benchmarks/checkpoints.py --record

bench-browser: book  ## time the book itself: pages, sliders, Python in the browser, make book
	@$(BIN)/python benchmarks/browser.py --record
	@$(BIN)/python benchmarks/cells.py --record
	@$(BIN)/python benchmarks/commands.py --record
	@$(BIN)/python tools/notebooks.py book/how-fast-it-is.ipynb

colab: env  ## write notebooks that fetch the code themselves into _build/colab (needs REPOSITORY_URL)
	@$(BIN)/python tools/colab.py

links: book  ## ask every address on the web that the book names
	@$(BIN)/python tools/links.py --outside

vendor: env  ## fetch the pinned browser files in vendor/ anew (needs npm)
	@$(BIN)/python tools/vendor.py

constraints: env  ## remake the lock files from the requirements (UPGRADE=--upgrade for newer versions)
	@$(BIN)/python tools/constraints.py $(UPGRADE)

matrix: env  ## test on Python 3.11 to 3.14, with pinned, lowest and newest packages (PYTHONS=python3.12 SETS=newest)
	@$(BIN)/python tools/matrix.py $(if $(PYTHONS),--pythons $(PYTHONS)) $(if $(SETS),--sets $(SETS)) $(if $(NOTEBOOKS),--notebooks $(NOTEBOOKS))
	@$(BIN)/python tools/notebooks.py book/last-verified.ipynb

clean:  ## remove what was built; keeps the environments
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
