# make run-all   installs if needed, runs the five notebooks offline, writes runs/<recipe>/report.html
# make test      installs if needed, runs the tests
# make bench     measures the lab against other scripts on this machine, in hours; make bench QUICK=1 in minutes
# make editions  writes student, solution and instructor notebooks into editions/ (ASSIGNMENT=, STUDENTS=file, GITHUB=owner/repo/branch/folder)
# The Python that makes the environment: the first of these that runs and is new enough, unless given.
PYTHON ?=
CANDIDATES = $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
VENV ?= .venv
GRADERS ?= .venv-graders
TORCH ?=
BIN = $(VENV)/bin
# Extra words for pip, for example --index-url of PyTorch's CPU builds.
PIP_ARGS ?=

RECIPE ?=
ASSIGNMENT ?=
STUDENT ?=
P ?=
OUT ?=

.PHONY: help run-all test test-oldest test-newest test-colab test-graders audit bench install notebooks editions readme lint clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile | head -4

run-all: $(VENV)/.installed
	@$(BIN)/python -m lab_utils run $(if $(RECIPE),--recipe $(RECIPE)) $(if $(ASSIGNMENT),--assignment $(ASSIGNMENT)) $(if $(STUDENT),--student $(STUDENT)) \
		$(if $(OUT),--out $(OUT)) $(foreach p,$(P),-p $(p)) $(if $(FRESH),--fresh)

test: $(VENV)/.installed
	@$(BIN)/python -m pytest -m "not course and not graders"

# The tests of the HF layer at the ends of the version ranges and with what Colab ships, each in an environment of its own, made anew from
# pyproject.toml (see tests/versions.py). torch stays at the tested version, since on most machines another brings gigabytes of CUDA: no other
# is tried unless asked for, as in `make test-oldest TORCH=2.11.0`.
test-oldest: END = oldest
test-newest: END = newest
test-colab: END = colab
test-oldest test-newest test-colab: $(VENV)/.installed
	@$(BIN)/python tests/versions.py $(END) .venv-$(END) $(if $(TORCH),--torch $(TORCH)) $(PIP_ARGS)
	@.venv-$(END)/bin/python -m pytest -m "hf and not course and not graders"

# Known weaknesses of the pinned versions, asked of the package index: without a network nothing is known, and --strict says so.
audit: $(VENV)/.installed
	@test -x .venv-audit/bin/pip-audit || { $(BIN)/python -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet pip-audit $(PIP_ARGS); }
	@.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

test-graders: $(VENV)/.installed $(GRADERS)/.installed
	@LAB_GRADERS=$(GRADERS) $(BIN)/python -m pytest -m graders --numprocesses=0

$(GRADERS)/.installed: $(VENV)/.installed
	@$(BIN)/python -m venv $(GRADERS)
	@$(GRADERS)/bin/python -m pip install --quiet "nbgrader>=0.9.6" "otter-grader>=7.0"
	@touch $@

bench: $(VENV)/.installed
	@$(BIN)/python -m lab_utils.bench $(if $(QUICK),--quick) $(if $(COURSE),--course $(COURSE)) $(if $(OUT),--out $(OUT)) $(if $(FRESH),--fresh)

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@for python in $(CANDIDATES); do \
		if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
			exec "$$python" lab_utils/bootstrap.py "$(VENV)" $(PIP_ARGS); \
		fi; \
	done; \
	echo "error: none of '$(CANDIDATES)' is Python 3.11 to 3.13; install one, or name it: make install PYTHON=/path/to/python3.12"; exit 1

readme: $(VENV)/.installed
	@$(BIN)/python -m lab_utils.readme

notebooks: $(VENV)/.installed
	@$(BIN)/python -m lab_utils.notebooks

editions: $(VENV)/.installed
	@$(BIN)/python -m lab_utils assignment $(ASSIGNMENT) --out $(or $(OUT),editions) \
		$(if $(STUDENTS),--students $(STUDENTS)) $(if $(GITHUB),--github $(GITHUB)) $(if $(FORCE),--force)

lint: $(VENV)/.installed
	@$(BIN)/ruff check . && $(BIN)/ruff format --check lab_utils tests

clean:
	rm -rf $(VENV) $(GRADERS) .venv-oldest .venv-newest .venv-colab .venv-audit runs
