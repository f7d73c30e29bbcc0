# The commands of the project. Each builds the environment in .venv first, once.
#
#   make demo      train a small FNeVR from nothing and open demo/index.html (under 10 minutes)
#   make test      the test suite (under 25 minutes on 2 cores)
#   make results   the small trainings behind docs/results.md, row by row; ROW=name, LIST=1, AGAIN=1,
#                  REMEASURE=1
#   make parity    full-size golden cases; PARITY_FOLDER says where they are
#   make soak      kills trainings and compares them bit for bit, damages checkpoints
#   make lint      ruff's fixes and format

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := test
.PHONY: demo test results parity soak lint env

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PARITY_FOLDER ?= ../shared/golden
PYTEST_WORKERS ?= 2
SOAK_FOLDER ?= soak
EXTRAS := media,demo,tensorboard,dev

# The first interpreter that runs, is new enough and can create environments; 3.11 is the line
# that constraints.txt freezes, newer ones resolve their own versions.
FIND_PYTHON = for python in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.14; do \
    if "$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' \
        >/dev/null 2>&1; then echo "$$python"; exit 0; fi; done; \
  echo 'error: Python 3.11 or newer with the venv module is needed; on Debian or Ubuntu: apt-get install python3-venv, else name one: make PYTHON=/path/to/python3' >&2; \
  exit 1

env: $(STAMP)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@python="$$($(FIND_PYTHON))"; "$$python" -m venv $(VENV)
	@version="$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; \
	  constraints=""; if [ "$$version" = 3.11 ]; then constraints="-c constraints.txt"; fi; \
	  echo "installing the packages for Python $$version (about a minute)"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check $$constraints -e '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m talking_heads_jax.workflows.demo --output demo

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --durations 15

lint: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

results: $(STAMP)
	$(BIN)/python -m talking_heads_jax.workflows.results \
	  $(if $(ROW),--row $(ROW)) $(if $(AGAIN),--again) $(if $(REMEASURE),--remeasure) \
	  $(if $(LIST),--list)

parity: $(STAMP)
	$(BIN)/talking-heads parity $(PARITY_FOLDER) --pending

soak: $(STAMP)
	$(BIN)/python -m talking_heads_jax.workflows.kill_campaign --output $(SOAK_FOLDER)/kills
	$(BIN)/python -m talking_heads_jax.workflows.fuzz_checkpoints \
	  --mutations 10000 --output $(SOAK_FOLDER)/fuzz.json
