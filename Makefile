PYTHON ?= python3
BIN := .venv/bin
SOURCE := models budgets compress reports featherpress cli.py

# The oldest PyTorch and torchvision that pyproject.toml allows; they have wheels for Python 3.11 to 3.13.
FLOOR := torch==2.6.0 torchvision==0.21.0

.PHONY: demo test test-floor mutants fuzz kill lint format docs build release constraints lines clean

# What is imported is compiled when it first is, and kept: half of what is installed never is.
export PYTHONDONTWRITEBYTECODE :=

# Into the target's folder goes WHAT.
define install
@$(PYTHON) -m venv $(@D)
@$(@D)/bin/python -m pip install --quiet --no-compile $(WHAT)
@touch $@
endef

# In the versions of constraints.txt, so that a new release elsewhere changes nothing here.
.venv/.demo: WHAT = --constraint constraints.txt --editable '.[train,report]'
.venv/.demo: pyproject.toml constraints.txt
	@echo "Installing into .venv: PyTorch is most of it, some 5 GB on disk and a few minutes."
	$(install)

.venv/.installed: WHAT = --constraint constraints.txt --editable '.[all,test]'
.venv/.installed: .venv/.demo
	@echo "Installing what tests and documentation need too."
	$(install)

.venv-floor/.installed: WHAT = --editable '.[all,test]' $(FLOOR)
.venv-floor/.installed: pyproject.toml
	@echo "Installing into .venv-floor: $(FLOOR)."
	$(install)

demo: .venv/.demo
	@$(BIN)/featherpress demo --overwrite

# Coverage by sys.monitoring, which Python 3.11 does not have: tracing would make some tests several times slower there.
COVER := import sys; print("--cov=featherpress --cov-report=" if sys.version_info >= (3, 12) else "")

test: lint
	@rm -f .coverage; cover=$$($(BIN)/python -c '$(COVER)'); set -x; \
	COVERAGE_CORE=sysmon OMP_NUM_THREADS=1 $(BIN)/pytest -n auto $$cover
	@total=$$($(BIN)/coverage report --format=total 2>/dev/null) && echo "coverage: $$total% of lines" \
	|| echo "coverage: measured on Python 3.12 and newer"

test-floor: .venv-floor/.installed
	OMP_NUM_THREADS=1 .venv-floor/bin/pytest -n auto

lint: .venv/.installed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

mutants: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation $(MUTANTS)

fuzz: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $(FUZZ)

kill: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.stopping $(KILL)

format: .venv/.installed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: .venv/.installed
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs build/docs
	@echo "docs: build/docs/index.html"

build: .venv/.installed
	@rm -rf dist
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt build twine
	$(BIN)/python -m build

# What a tag publishes: built, checked, and used outside the repository.
release: build
	$(BIN)/python -m twine check --strict dist/*
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/test_installing.py
	@ls -l dist

# CUDA's packages are left to torch, which names their versions itself.
constraints:
	@$(PYTHON) -m venv .venv-new
	@.venv-new/bin/python -m pip install --quiet --no-compile --editable '.[all,test]' build twine
	@.venv-new/bin/python -m pip freeze --exclude-editable | grep -vE '^(nvidia|cuda|triton)' > .venv-new/versions
	@{ grep '^#' constraints.txt; cat .venv-new/versions; } > .venv-new/constraints.txt
	@mv .venv-new/constraints.txt constraints.txt; rm -r .venv-new

lines:
	@for name in $(SOURCE); do printf '%7d  %s\n' $$(find $$name -type f -name '*.py' -exec cat {} + | wc -l) $$name; done
	@printf '%7d  in all\n' $$(find $(SOURCE) -type f -name '*.py' -exec cat {} + | wc -l)

clean:
	rm -rf .venv .venv-floor .venv-new .mypy_cache .pytest_cache .ruff_cache .coverage build dist *.egg-info
