# `make demo` shows everything on real data, `make test` checks everything; both begin with `setup`, which works once.
# A Python of 3.11 or later: make PYTHON=python3.12 …

PYTHON ?= python3
# More than there are cores: much of what tests do is to wait.
PROCESSES ?= 4
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FOLDERS := schemas engine projections operations consumers api cli bench tests

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick lint format bench chaos soak up down lock clean

help: ## say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything pinned in requirements-dev.lock

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Guerdon needs Python 3.11 or later and '$(PYTHON)' is not: install one and run make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; \
	  exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed: install its venv module (on Debian and Ubuntu the package python3-venv)" >&2; exit 2; }
	@all=$$(grep -c '==' requirements-dev.lock); echo "installing $$all pinned packages into $(VENV): a minute or two"; rm -f $(VENV)/.failed; \
	{ $(BIN)/python -m pip install --progress-bar off --disable-pip-version-check --require-hashes \
	  --requirement requirements-dev.lock 2>&1 || touch $(VENV)/.failed; } | tee $(VENV)/install.log | awk -v all=$$all ' \
	    /^(Collecting|Requirement already)/ { if (++n % 10 == 0) { print "  " n " of " all " fetched"; fflush() } } \
	    /^Installing collected/ { print "  unpacking them"; fflush() }'; \
	test ! -e $(VENV)/.failed || { tail -n 20 $(VENV)/install.log >&2; \
	  echo "the packages could not be installed, as said above (all of it is in $(VENV)/install.log)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## the whole tour on real retail data, on local services
	@$(BIN)/guerdon demo

test: lint ## lint, types and all tests, and which ten of them took longest
	$(BIN)/pytest --numprocesses $(PROCESSES) --dist loadgroup --durations 10

quick: $(READY) ## the tests that need no service, with fewer examples
	$(BIN)/pytest --numprocesses 2 --dist loadgroup --hypothesis-profile quick -m "not kafka and not postgres and not chaos"

lint: $(READY) ## ruff with every rule, its formatter, mypy strict, yamllint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(wildcard $(FOLDERS))
	$(BIN)/yamllint --strict docker-compose.yml .pre-commit-config.yaml

format: $(READY) ## put the code into the form that lint wants
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Wheels of some 30 MB that only the comparison needs, and not every machine has them: it goes on without.
$(VENV)/.engines: bench/requirements.lock $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
	  --requirement bench/requirements.lock && touch $@ || \
	  echo "other rule engines could not be installed: the language is measured without them" >&2

bench: $(READY) $(VENV)/.engines ## measure Guerdon against the floor, and its language beside other rule engines
	@$(BIN)/guerdon bench
	@$(BIN)/python -m bench.language
	@$(BIN)/python -m bench.ticks
	@$(BIN)/python -m bench.budgets
	@$(BIN)/python -m bench.referrals
	@$(BIN)/python -m bench.compression
	@$(BIN)/python -m bench.replay
	@$(BIN)/python -m bench.projections
	@$(BIN)/python -m bench.as_of
	@$(BIN)/python -m bench.open_lots
	@$(BIN)/python -m bench.insight.facts
	@$(BIN)/python -m bench.reach.reads
	@$(BIN)/python -m bench.reach.redemptions

chaos: $(READY) ## the long form of the tests in which processes, networks, disks and clocks fail
	GUERDON_CHAOS=full $(BIN)/pytest -m chaos

soak: $(READY) ## a million steps of the ledger's slow model, ten times the examples of every property, reports of a whole year
	GUERDON_SOAK_STEPS=1000000 $(BIN)/pytest --capture=no --timeout=0 tests/engine/ledger/test_model.py
	$(BIN)/pytest --numprocesses 2 --dist loadgroup --hypothesis-profile full --timeout=0 -m "not kafka and not chaos"
	GUERDON_EVERY_NTH_HOUSEHOLD=1 $(BIN)/pytest --timeout=0 tests/insight

up: $(READY) ## start the local services
	@$(BIN)/guerdon up

down: $(READY) ## end the local services
	@$(BIN)/guerdon down

# Remade after a change of the dependencies in pyproject.toml; what is pinned stays as long as it fits. requirements.lock is
# what running needs, and the setuptools that installs Guerdon; requirements-dev.lock has all that working needs besides.
# `--generate-hashes` pins every file, so that no other can be installed; `--no-emit-index-url` and `--no-header` keep out
# where they came from: any package index or mirror serves.
PIN := uv pip compile --python-version 3.11 --universal --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate

lock: ## pin the dependencies of pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "locks are made with uv: install it (pip install uv) and run make lock" >&2; exit 2; }
	$(PIN) pyproject.toml --extra parquet --group build --output-file requirements.lock
	$(PIN) pyproject.toml --all-extras --group dev --constraints requirements.lock --output-file requirements-dev.lock
	$(PIN) --group bench --output-file bench/requirements.lock

clean: ## remove the environment and the caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
