# Pileus: `make` lists what there is.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
export VENV

.DEFAULT_GOAL := help
.PHONY: help setup up down status test check unit e2e bench simulate docs clean
.PHONY: api-coverage fuzz role-matrix databases kill-run systemvm

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what the others need (Debian packages, virtual environment)
	@tools/setup

up: setup ## A whole cloud on this machine: server, one host, a template
	@$(BIN)/pileus up

systemvm: setup ## The template of routers that are virtual machines (100 MB of packages the first time), in build/
	@$(BIN)/python -m pileus.appliance.image.system build/systemvm.qcow2

down: setup ## Stop that cloud; nothing of it stays running (make down PURGE=1 forgets its data too)
	@$(BIN)/pileus down $(if $(PURGE),--purge)

status: setup ## What of that cloud runs
	@$(BIN)/pileus status

check: setup ## Lint, types, import law, house rules: seconds
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/house.py
	@$(BIN)/python tools/role_matrix.py --check

unit: setup ## The suites without guests: seconds to a minute
	@$(BIN)/pytest -n 2 tests/unit tests/component tests/workflow

e2e: setup ## Real hosts, real guests, kill -9 (needs root)
	@$(BIN)/pytest tests/e2e

test: check ## Everything a change must pass
	@$(BIN)/pytest -n 3 tests/unit tests/component tests/workflow tests/conformance tests/e2e

KINDS ?= sqlite,postgresql,mariadb
databases: setup ## Component and workflow suites on every kind of database: an hour (make databases KINDS=mariadb)
	@PILEUS_TEST_DATABASES=$(KINDS) $(BIN)/pytest -n 2 tests/component tests/workflow

kill-run: setup ## Deploy through two servers that are killed all the time: make kill-run DATABASE=mariadb DEPLOYS=1000
	@$(BIN)/python -m pileus.testing.killrun --database $(or $(DATABASE),sqlite) --deploys $(or $(DEPLOYS),1000)

bench: setup ## Measure one claim: make bench BENCH=first_vm
	@test -n "$(BENCH)" || { echo "make bench BENCH=name, one of: $$(ls bench/*.py | xargs -n1 basename | sed 's/\.py//' | tr '\n' ' ')"; exit 1; }
	@$(BIN)/python bench/$(BENCH).py

simulate: setup ## Play the whole system under seeds: make simulate SEEDS=1000 FROM=0, or one of them: make simulate SHOW=17
	@$(BIN)/python -m pileus.testing.simulation $(if $(SHOW),--show $(SHOW),--seeds $(or $(SEEDS),100) --from $(or $(FROM),0) --processes 2)

docs: setup ## Write the command reference and OpenAPI document to docs/api
	@$(BIN)/python tools/reference.py docs/api

api-coverage: setup ## How much of API 2.2 is there (make api-coverage MISSING=1 lists what is not)
	@$(BIN)/python tools/api_coverage.py $(if $(MISSING),--missing)

fuzz: setup ## Call every command with hostile values (make fuzz CALLS=100000)
	@$(BIN)/python tools/fuzz.py --calls $(or $(CALLS),10000)

role-matrix: setup ## Write who gets what from every command; review the difference
	@$(BIN)/python tools/role_matrix.py --write

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
