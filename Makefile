# Everything a checkout can do; `make help` explains. Needs Python >= 3.11 and Rust (rustup.rs), installs the rest.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.9
INSTALL := $(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt
RUST := $(shell find core_rs/src -name '*.rs' 2>/dev/null) Cargo.toml Cargo.lock core_rs/Cargo.toml core_rs/build.rs $(wildcard proto/shopkeeper/v1/*.proto)
ARGS ?=
MINUTES ?= 30

.PHONY: help demo test develop lint format servers rust-test py-test protos lock bench cluster soak clean

help: ## Print what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: .venv/run.stamp ## Set everything up and run the main job on real data: import, train, publish, serve, measure (ARGS="--serve" keeps serving)
	$(BIN)/shopkeeper demo $(ARGS)

test: develop servers lint rust-test py-test ## Set everything up and pass all checks and tests

develop: .venv/dev.stamp ## Set up .venv with the tools of development

lint: .venv/dev.stamp ## Check format, style, types, architecture and the contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	cargo fmt --check
	cargo clippy --quiet --locked --all-targets --target-dir target/cargo -- -D warnings
	cargo clippy --quiet --locked --features python --target-dir target/cargo -- -D warnings

format: .venv/dev.stamp ## Format all code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .
	cd proto && ../$(BIN)/buf format --write
	cargo fmt

servers: .venv/dev.stamp ## Fetch the Kafka, the ClickHouse and the promtool that the tests run, kept outside the checkout
	@$(BIN)/python -m tests.fetch_servers

rust-test: ## Run the tests of the Rust core
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust from rustup.rs, then run make again" >&2; exit 3; }
	cargo test --locked --target-dir target/cargo

py-test: .venv/dev.stamp ## Run the Python tests and doctests (ARGS="-k name" chooses)
	$(BIN)/pytest $(ARGS)

protos: .venv/dev.stamp ## Write the Python stubs of proto/ into shopkeeper/v1
	$(UV) run --quiet --no-project --with grpcio-tools==1.75.1 --with mypy-protobuf==5.1.0 python proto/generate.py

release-contract: .venv/dev.stamp ## Keep the contract as released; later changes may not break it
	cd proto && ../$(BIN)/buf build --output released.binpb

lock: .venv/dev.stamp ## Resolve the newest dependencies into constraints.txt and Cargo.lock
	$(UV) pip compile --quiet --upgrade --universal --no-header --no-annotate --python-version 3.11 --all-extras --group dev --group bench pyproject.toml --output-file constraints.txt
	cargo update

bench: .venv/bench.stamp servers ## Measure the goals of speed and memory into bench/results/latest.json (ONLY=G1 runs one)
	PYTHONPATH=. $(BIN)/python bench/run.py $(if $(ONLY),--only $(ONLY)) $(ARGS)

cluster: servers ## Run two machines with Kafka and ClickHouse, import a shop through them, measure the lag (ARGS=--whole takes all of it)
	PYTHONPATH=. $(BIN)/python bench/cluster.py $(ARGS)

soak: servers ## Run the long fault rounds, then a cluster at half load for MINUTES=30
	$(BIN)/pytest -m soak $(ARGS)
	PYTHONPATH=. $(BIN)/python bench/soak.py --minutes $(MINUTES)

clean: ## Remove what was built and the demo's data
	rm -rf .venv target data core_rs/*.so

.venv/uv.stamp: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed: install it, then run make PYTHON=/path/to/python3" >&2; exit 3; }
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust from rustup.rs, then run make again" >&2; exit 3; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

.venv/run.stamp: .venv/uv.stamp pyproject.toml $(RUST)
	$(INSTALL) --editable '.[embedded,trainers,demo]'
	@touch $@

.venv/dev.stamp: .venv/run.stamp
	$(INSTALL) --requirements pyproject.toml --extra torch --extra text --extra ray --group dev
	@touch $@

.venv/bench.stamp: .venv/dev.stamp
	$(INSTALL) --group bench
	@touch $@
