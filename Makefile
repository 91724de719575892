# The environment can be chosen: make test VENV=/path/to/venv; PYTHON is what makes it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests compute with one thread each; each worker takes some 2 GB.
WORKERS := -n logical --maxprocesses 4
STAMP := $(VENV)/.murakit-installed

.PHONY: demo test test-slow lint bench examples clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,test]'
	touch $@

## demo: make radiographs, train on them, judge by study and region, save the model, write a report
demo: $(STAMP)
	$(BIN)/python examples/01_train_and_evaluate.py
	$(BIN)/python examples/05_report.py

## test: the unit tests
test: $(STAMP)
	$(BIN)/python -m pytest $(WORKERS)

## test-slow: the tests that take minutes: every backbone, interrupted examples
test-slow: $(STAMP)
	$(BIN)/python -m pytest $(WORKERS) -m slow

## lint: what CI holds the code to
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## examples: every example in its quick form
examples: $(STAMP)
	for example in examples/[0-9]*.py; do $(BIN)/python $$example --quick || exit 1; done

## bench: all benchmarks; writes benchmarks/RESULTS.md
bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) runs build dist
