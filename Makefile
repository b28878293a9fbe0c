# `make demo` and `make test` do all the set-up themselves, from a fresh clone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/.installed

.PHONY: demo test lint types format clean

demo: $(DONE)
	$(BIN)/mdpo demo --out runs/demo

test: $(DONE)
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

lint: $(DONE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(DONE)
	$(BIN)/pyright

format: $(DONE)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs

# torch first and pinned: unpinned, other packages would pull a build with gigabytes of CUDA.
$(DONE): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(DONE)
