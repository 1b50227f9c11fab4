PYTHON ?= python3
BIN = .venv/bin

.PHONY: install train test test-all lint docs
install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

train: install
	$(BIN)/family fit --config configs/translation/shapes.yaml
	$(BIN)/python -m tasks.commands.show_samples

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One thread a worker: two workers on two cores are faster than one test with two threads.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

docs: install
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build

test: lint docs
	$(PYTEST) -m "not slow"

test-all: lint docs
	$(PYTEST)
