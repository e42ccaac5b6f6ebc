PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test format clean

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test,export]'
	touch $@

demo: .venv/.installed
	$(BIN)/featherpress demo --overwrite

test: .venv/.installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

format: .venv/.installed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build *.egg-info
