# The environment can be chosen: make test VENV=/path/to/venv; PYTHON is what makes it.
PYTHON ?= python3
VENV ?= .venv
OLDEST ?= .venv-oldest
BIN := $(VENV)/bin
# Tests compute with one thread each; each worker takes some 2 GB.
WORKERS := -n logical --maxprocesses 4
STAMP := $(VENV)/.murakit-installed

.PHONY: demo test test-slow test-oldest lint bench examples clean

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

## test-oldest: the unit tests with the oldest dependencies that pyproject.toml allows; PYTHON has to be 3.11
test-oldest:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST) --resolution lowest-direct --editable '.[all,test]'
	$(OLDEST)/bin/python -m pytest $(WORKERS)

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
	rm -rf $(VENV) $(OLDEST) runs build dist
