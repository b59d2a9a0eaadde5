# make run-all   installs if needed, runs the five notebooks offline, writes runs/<recipe>/report.html
# make test      installs if needed, runs the tests
PYTHON ?= $(shell command -v python3.13 || command -v python3.12 || command -v python3.11 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
# Extra words for pip, for example --index-url of PyTorch's CPU builds.
PIP_ARGS ?=

RECIPE ?=
ASSIGNMENT ?=
P ?=
OUT ?=

.PHONY: help run-all test install notebooks lint clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile | head -2

run-all: $(VENV)/.installed
	@$(BIN)/python -m lab_utils run $(if $(RECIPE),--recipe $(RECIPE)) $(if $(ASSIGNMENT),--assignment $(ASSIGNMENT)) \
		$(if $(OUT),--out $(OUT)) $(foreach p,$(P),-p $(p)) $(if $(FRESH),--fresh)

test: $(VENV)/.installed
	@$(BIN)/python -m pytest -m "not course"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no python3 found; install Python 3.11, 3.12 or 3.13."; exit 1; }
	@PYTHONPATH= "$(PYTHON)" lab_utils/bootstrap.py "$(VENV)" $(PIP_ARGS)

notebooks: $(VENV)/.installed
	@$(BIN)/python -m lab_utils.notebooks

lint: $(VENV)/.installed
	@$(BIN)/ruff check . && $(BIN)/ruff format --check lab_utils tests

clean:
	rm -rf $(VENV) runs
