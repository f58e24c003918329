# Every target sets itself up: a fresh clone and Python 3.11 to 3.13 are enough.
#   make demo    the main job on the embedded model, into runs/demo
#   make test    everything that must hold: lint, structure, types, doctests, tests, notebooks
#   make check   lint, structure and types only
#   make bench   the comparisons of bench/, into runs/bench
#   make clean   remove what the other targets made; your own runs stay

PYTHON ?= python3
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
BENCH ?= $(filter-out __init__ _%,$(patsubst bench/%.py,%,$(wildcard bench/*.py)))

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SITE := build/site
say = @printf '==> %s\n'
# three tries, because networks fail
retry = for try in 1 2 3; do $(1) && break; test $$try = 3 && exit 1; echo "==> that failed, trying again"; sleep 5; done

.DEFAULT_GOAL := test
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: demo test check bench clean lint house types doctest pytest site

demo: .venv/installed
	$(say) "running the demo into runs/demo"
	@$(BIN)/loka demo --out runs/demo

test: check doctest pytest

check: lint house types

bench: .venv/installed-dev
	@mkdir -p runs/bench
	@for name in $(BENCH); do echo "==> bench/$$name.py"; \
		$(BIN)/python -m bench.$$name --json runs/bench/$$name.json || exit 1; done

clean:
	$(say) "removing .venv, build, dist, runs/demo, runs/bench and caches"
	@rm -rf .venv build dist runs/demo runs/bench *.egg-info .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

lint: .venv/installed-dev
	$(say) "lint and format (ruff)"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run $(BIN)/ruff format ."; exit 1; }

house: .venv/installed-dev
	$(say) "structure: floors, circles, links (tests/house.py)"
	@$(BIN)/python tests/house.py

types: site
	$(say) "types (pyright)"
	@$(BIN)/pyright

doctest: site
	$(say) "doctests"
	@PYTHONPATH=$(SITE) $(BIN)/pytest -q --doctest-modules --confcutdir=$(SITE) $(SITE)/loka; \
		status=$$?; test $$status = 0 || test $$status = 5

# one thread for each worker: together they fill the cores
pytest: .venv/installed-dev
	$(say) "tests and notebooks (pytest)"
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest $(PYTEST_ARGS)

# Types and doctests use an installed copy: in the checkout, modules would have two names.
# build/ is removed first, or deleted modules would come back.
site: .venv/installed-dev
	$(say) "installing a copy into $(SITE)"
	@rm -rf build
	@$(PIP) install --no-deps --no-build-isolation --target $(SITE) .

.venv/installed: pyproject.toml constraints.txt | .venv/bin/pip
	$(say) "installing loka and what it needs (some minutes the first time)"
	@$(call retry,$(PIP) install -c constraints.txt -e .)
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/pip
	$(say) "installing loka, what it needs and the developers' tools (some minutes the first time)"
	@$(call retry,$(PIP) install -c constraints.txt -e '.[dev]')
	@touch .venv/installed $@

.venv/bin/pip:
	$(say) "creating .venv with $(PYTHON)"
	@command -v $(PYTHON) > /dev/null || { echo "no $(PYTHON) here: install Python 3.11 to 3.13, or make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "loka needs Python 3.11 to 3.13, $(PYTHON) is $$($(PYTHON) -V 2>&1): make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv --clear .venv || { \
		rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment: install its venv module (python3-venv)"; exit 1; }
