# What a person does with a checkout. Each target makes what it needs; `.venv` is made once, and again when the lock changes.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# A command may exist and yet not run (version managers leave such shims): each candidate is asked for its version.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
PIP_TOOLS := pip-tools==7.6.2

# Many tests wait for other processes most of the time: one file more than there are processors to run them on.
JOBS := 3
TIME := 10m

.DEFAULT_GOAL := help
.PHONY: help test torture mutants demo cluster-demo bench race race-setup scale lint format lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: $(STAMP) ## run all tests, JOBS=3 files at a time
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

torture: $(STAMP) ## everything that tries to break truba, for TIME=10m; ARGS="--list" shows what
	$(BIN)/python -m tests.long --time $(TIME) $(ARGS)

mutants: $(STAMP) ## bugs on purpose, each of which a test must see; ARGS="--list" shows them
	$(BIN)/python -m tests.mutants $(ARGS)

demo: $(STAMP) ## see work that killed processes left behind get finished
	$(BIN)/truba demo $(ARGS)

cluster-demo: $(STAMP) ## the same with three nodes on three nats-servers, whose leaders are killed
	$(BIN)/truba demo --cluster $(ARGS)

bench: $(STAMP) ## measure operations a second, embedded and over TCP
	$(BIN)/truba bench $(ARGS)

race: $(STAMP) ## the same job on truba, Redis, PostgreSQL, NATS, RabbitMQ, DBOS and Restate (bench/README.md)
	$(BIN)/python -m bench.race $(ARGS)

scale: $(STAMP) ## ten million stored sessions, a million active ones, pauses of the loop (docs/scale.md)
	$(BIN)/python -m bench.scale $(ARGS)

# Servers of the system come from its own packages: the race names those that are missing. Install scripts are not run.
race-setup: ## install under build/race what the race's DBOS and Restate need
	$(PYTHON) -m venv --clear build/race/venv
	build/race/venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes \
		-r bench/race/requirements.lock
	mkdir -p build/race/node
	cp bench/race/package.json bench/race/package-lock.json build/race/node
	cd build/race/node && npm ci --ignore-scripts --no-audit --no-fund --no-progress

lint: $(STAMP) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

format: $(STAMP) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "truba needs Python 3.11 or later, and none was found;" \
		"install it, or name one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments;" \
		"install its venv package (python3-venv on Debian and Ubuntu)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	$(PIP) install --quiet --no-build-isolation --no-deps -e .
	@touch $@

# Made with the oldest Python supported, so that what only older versions need is in the lock too. The machine's own
# settings of pip are left out: the lock holds names, versions and hashes of what everybody can download, nothing else.
PLAIN := env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u PIP_CONSTRAINT PIP_CONFIG_FILE=/dev/null
LOCK := $(PLAIN) build/lock/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
	--no-emit-trusted-host --no-emit-find-links --no-emit-options --annotation-style=line $(ARGS)

lock: ## write requirements.lock and requirements-dev.lock anew; ARGS=--upgrade takes newer versions
	$(PYTHON) -m venv --clear build/lock
	$(PLAIN) build/lock/bin/python -m pip --disable-pip-version-check install --quiet $(PIP_TOOLS)
	build/lock/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['dev'], sep='\n')" > build/dev.in
	$(LOCK) --output-file=requirements.lock pyproject.toml
	$(LOCK) --output-file=requirements-dev.lock --constraint=requirements.lock pyproject.toml build/dev.in

clean: ## remove everything that can be made again
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/node-client/node_modules \
		examples/webhook/express/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
