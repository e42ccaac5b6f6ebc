PYTHON ?= python3
BIN := .venv/bin
SOURCE := models budgets compress reports featherpress cli.py

.PHONY: demo test mutants lint format docs build lines clean

.venv/.installed: pyproject.toml
	@echo "Installing into .venv: PyTorch is most of it, some 6 GB on disk and a few minutes."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --no-compile --editable '.[all,test]'
	@# On all cores; without it Python compiles at every start where it may not write (PYTHONDONTWRITEBYTECODE).
	@$(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true  # some packages ship templates that are no Python
	touch $@

demo: .venv/.installed
	@$(BIN)/featherpress demo --overwrite

# Coverage by sys.monitoring, which Python 3.11 does not have: tracing would make some tests several times slower there.
COVER := import sys; print("--cov=featherpress --cov-report=" if sys.version_info >= (3, 12) else "")

test: lint
	@rm -f .coverage; cover=$$($(BIN)/python -c '$(COVER)'); set -x; \
	COVERAGE_CORE=sysmon OMP_NUM_THREADS=1 $(BIN)/pytest -n auto $$cover
	@total=$$($(BIN)/coverage report --format=total 2>/dev/null) && echo "coverage: $$total% of lines" \
	|| echo "coverage: measured on Python 3.12 and newer"

lint: .venv/.installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

mutants: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation $(MUTANTS)

format: .venv/.installed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: .venv/.installed
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs build/docs
	@echo "docs: build/docs/index.html"

build: .venv/.installed
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build

lines:
	@for name in $(SOURCE); do printf '%7d  %s\n' $$(find $$name -type f -name '*.py' -exec cat {} + | wc -l) $$name; done
	@printf '%7d  in all\n' $$(find $(SOURCE) -type f -name '*.py' -exec cat {} + | wc -l)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .coverage build dist *.egg-info
