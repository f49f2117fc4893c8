# `make` lists the targets. Each is one command; what they do is in scripts/ and in the package.
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test soak lint format docs lock images images-test bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-zA-Z%\/-]*:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv with everything that development needs
	@scripts/bootstrap

quickstart: setup ## Run one benchmark end to end (MODEL_URL, MODEL_ID, API_KEY_NAME choose the endpoint)
	@$(BIN)/nemo-evaluator quickstart $(ARGS)

test: setup ## Run all tests (REQUIRE_DOCKER=1: fail where an engine is missing)
	@$(BIN)/pytest $(ARGS)

soak: setup ## Kill, starve and crowd whole runs for about half an hour (SOAK_ROUNDS; as root, with libfaketime)
	@SOAK_ROUNDS=$${SOAK_ROUNDS:-10} $(BIN)/pytest -o 'python_files=test_*.py soak.py' -rP tests/reliability $(ARGS)

lint: setup ## Check style, types and shell scripts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/shellcheck base-image/entrypoint base-image/install-requirements scripts/bootstrap .ci/run

format: setup ## Format the code
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

docs: setup ## Write the generated parts of the documents anew
	@$(BIN)/python scripts/harness_table.py
	@$(BIN)/nemo-evaluator schema > docs/framework.schema.json

lock: setup ## Make all lock files anew (ARGS=--upgrade: with the newest versions)
	@$(BIN)/nemo-evaluator images lock $(ARGS)

images: setup ## Build all images
	@$(BIN)/nemo-evaluator images build

image/%: setup ## Build one image, and what it is built on: make image/gpqa
	@$(BIN)/nemo-evaluator images build $*

images-test: setup ## Build all images and hold each to the image contract
	@REQUIRE_DOCKER=1 $(BIN)/pytest tests/imaging tests/images $(ARGS)

bench: setup ## Measure start-up, native loop, store and proxy beside others (needs a package index)
	@$(BIN)/python -m benchmarks.cli_start
	@$(BIN)/python -m benchmarks.engine_loop $(ARGS)
	@$(BIN)/python -m benchmarks.store
	@$(BIN)/python -m benchmarks.proxy --peers

clean: ## Remove what the targets above made, but for images
	rm -rf .venv .venv-published .mypy_cache .pytest_cache .ruff_cache results/quickstart
