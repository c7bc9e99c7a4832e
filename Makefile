# Every target does its own set-up: Python 3.11 or 3.12, git and make are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := 0.13.9

.PHONY: demo up down test test-all test-system rehearsal gpu bench pictures soak lint docs format versions lock clean

demo: $(VENV)/.installed ## the main job on synthetic speech
	$(BIN)/clep-dg run --preset demo

up: $(VENV)/.installed ## Prefect server, MLflow server and a worker on 127.0.0.1, deployments in place
	@$(BIN)/python -m clepdg_tasks.admin.services up

down: $(VENV)/.installed ## stop what `make up` started
	@$(BIN)/python -m clepdg_tasks.admin.services down

test: $(VENV)/.installed-extras ## what holds every part of the house, in five minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.installed-extras ## every test; tests/tiers.py lists those that take long
	$(BIN)/python -m pytest -m ""

test-system: $(VENV)/.installed-extras ## tests that need a system package; .ci/run installs what it can
	$(BIN)/python -m pytest -m system -rs

rehearsal: $(VENV)/.installed-extras ## clep-dg/full with models of true size, against stand-ins for the hub and the publishers
	$(BIN)/python -m pytest -s -m "" tests/rehearsal

gpu: ## a GPU: correct, then how fast; needs PyTorch and transformers alone (GPU=--cpu tries it on a CPU)
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) tests/gpu/measure.py $(GPU)

bench: $(VENV)/.installed-extras ## speed, as ratios measured in the same run; writes docs/benchmarks.md
	$(BIN)/python -m tests.benchmark.bench

pictures: $(VENV)/.installed-extras ## the pictures in docs/pictures, of the demo: needs Chromium
	$(BIN)/python -m tests.pictures

soak: $(VENV)/.installed-extras ## 200 kills at random moments (COUNT=n, SEED=n), a power cut; an hour
	COUNT=$(COUNT) SEED=$(SEED) $(BIN)/python -m pytest -s tests/soak

lint: $(VENV)/.installed-extras ## formatting, rules, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.installed-extras ## the documentation as a site in var/site; fails on a broken link
	$(BIN)/mkdocs build --strict --site-dir var/site

format: $(VENV)/.installed-extras
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

versions: $(VENV)/.installed ## record raised stage versions; SAME=1: results stay the same
	$(BIN)/python -m clepdg_tasks.engine.versions $(if $(SAME),--same-results)

lock: $(VENV)/.installed ## resolve the dependencies anew
	$(BIN)/uv pip compile pyproject.toml -q --universal --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "make lock" -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml requirements.lock -q --extra laion --extra vad --extra dev --extra postgres --extra kubernetes --extra docs --universal --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "make lock" -o requirements-extras.lock

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 13) else "Python 3.11 or 3.12 is needed, %s is Python %d.%d; try: make PYTHON=python3.11 ..." % (sys.executable, *v))'
	@echo "Setting up $(VENV) from locked, hashed dependencies: a minute or two, 6 GB."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV)
	$(BIN)/uv pip sync --compile-bytecode --python $(BIN)/python --require-hashes requirements$(if $(wildcard $(VENV)/.installed-extras),-extras).lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@mkdir -p $(VENV)/names && for name in tasks flows; do ln -sfn ../../$$name $(VENV)/names/clepdg_$$name; done # see [tool.mypy]
	@touch $@

$(VENV)/.installed-extras: $(VENV)/.installed requirements-extras.lock
	@echo "Adding what tests need."
	$(BIN)/uv pip sync --compile-bytecode --python $(BIN)/python --require-hashes requirements-extras.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

clean: ## remove the environment; all state stays in var/
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
