PYTHON ?= python3
BIN = .venv/bin

.PHONY: install train test lint
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

test: lint
	$(BIN)/python -m pytest
