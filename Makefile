PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test mutants format clean

.venv/.installed: pyproject.toml
	@echo "Installing into .venv: PyTorch is most of it, some 6 GB on disk and a few minutes."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --no-compile --editable '.[test,export]'
	touch $@

demo: .venv/.installed
	@$(BIN)/featherpress demo --overwrite

test: .venv/.installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

mutants: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation $(MUTANTS)

format: .venv/.installed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build *.egg-info
