# make train   sets up .venv and trains on Shakespeare for about three minutes
# make test    sets up .venv and runs lint, types and all tests (under 12 minutes on two cores)
# make test-browser   tests the pages in Chromium, which must be installed

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3.14 python3,$(shell command -v $(p) 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: train test test-long test-browser fuzz chaos starts lint clean

train: $(VENV)/installed
	$(BIN)/feste-dp launch --config configs/quick.yaml

test: lint
	$(BIN)/python -m pytest -m "not long and not browser" -n 2 --dist loadfile

test-long: $(VENV)/installed-test
	$(BIN)/python -m pytest -m long

# 445,000 mutated inputs for every reader of bytes from outside, in a few minutes
fuzz: $(VENV)/installed-test
	$(BIN)/python -m tests.fuzz.runner

# trains while everything is killed, stopped and resumed at random: make chaos SECONDS=600
SECONDS ?= 60
chaos: $(VENV)/installed-test
	$(BIN)/python -m tests.chaos --seconds $(SECONDS)

# kills starts at every system call that writes, and sends signals at any moment: hours, but for one of WHAT=kills,
# power, signals, moments, process-one, commands
WHAT ?= kills power signals moments process-one commands
starts: $(VENV)/installed-test
	for what in $(WHAT); do $(BIN)/python -m tests.starts $$what || exit; done

test-browser: $(VENV)/installed-browser
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
		{ echo "error: Chromium and its driver are needed: apt-get install chromium chromium-driver"; exit 2; }
	$(BIN)/python -m pytest -m browser

lint: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or later is needed and none was found: set PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11: set PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# MPICH lies in a folder of its own: it and Open MPI both want $(BIN)/mpirun
$(VENV)/installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --ignore-installed --prefix $(VENV)/mpich 'mpich>=5'
	@touch $(VENV)/installed $@

$(VENV)/installed-browser: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
	@touch $(VENV)/installed $(VENV)/installed-test $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
