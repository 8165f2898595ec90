# Everything here works from a fresh checkout with nothing but Python 3.11 or newer: each target makes `.venv` first, and
# again only when pyproject.toml or uv.lock have changed.

SHELL := /bin/bash
# Every command and test server would compile the source anew: that is half the time of a short process.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
DATA_DIR ?= data
# Many tests wait for clocks and processes: three workers keep two cores busy.
TEST_WORKERS ?= 3

# The first interpreter that is new enough; `make PYTHON=…` chooses another.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$name"; break; }; done)

.PHONY: help demo test soak check bench instructions sbom docs images format deploy destroy e2e clean

help: ## Say what there is to make
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.installed ## Start a server with a demo shop on 127.0.0.1:8420
	@$(BIN)/tillway demo --data-dir $(DATA_DIR)

test: $(VENV)/.installed-dev ## Run every kind of test in a short dose (minutes)
	$(BIN)/pytest -q -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

soak: $(VENV)/.installed-dev ## Run the long doses of those tests that have one (an hour)
	$(BIN)/pytest -q -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --dose soak

check: $(VENV)/.installed-dev ## Check style, types, layers and the house rules that can be counted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini
	$(BIN)/pytest -q tests/test_layers.py tests/test_tidy.py

SBOM ?= dist/tillway.cdx.json
sbom: $(VENV)/.uv-$(UV_VERSION) ## Write the bill of materials of a release (CycloneDX) from uv.lock
	@mkdir -p $(dir $(SBOM))
	@$(BIN)/uv export --quiet --frozen --no-dev --all-extras --no-header --preview-features sbom-export \
	    --format cyclonedx1.5 --output-file $(SBOM) > /dev/null
	@$(BIN)/python scripts/release.py sbom $(SBOM)

docs: $(VENV)/.installed-dev ## Build the documentation's site into build/docs/site
	@$(BIN)/python scripts/site.py build/docs
	@cd build/docs && $(CURDIR)/$(BIN)/uv run --quiet --frozen --project $(CURDIR) --isolated --only-group docs \
	    zensical build --strict
	@echo "The first page is build/docs/site/index.html."

images: $(VENV)/.installed-dev ## Take the pictures of the dashboard for the docs (needs Chromium)
	@$(BIN)/python scripts/images.py docs/images

format: $(VENV)/.installed-dev ## Put the source into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev ## Measure payments a second (docs/benchmarks.md)
	$(BIN)/python -m bench --stock build/bench-stock
	$(BIN)/python -m bench.with_stock --stored 1000000 --stock build/bench-stock
	rm -rf build/bench-stock
	$(BIN)/python -m bench.stores

instructions: $(VENV)/.installed-dev ## Count the instructions, rows and bytes of a payment (needs valgrind)
	$(BIN)/python -m bench.instructions

TOOL ?= cloudformation
# Without STAGE, it is the stage of BRANCH, or of the branch that is checked out.
deploy: $(VENV)/.installed-dev ## Deploy a stage to AWS: STAGE=…, TOOL=cloudformation|terraform|cdk (docs/aws-stages.md)
	@$(BIN)/python deploy/stage deploy $(TOOL) $(STAGE) $(if $(PRINT),--print $(PRINT))

destroy: $(VENV)/.installed-dev ## Delete a stage on AWS, with its payments: STAGE=…
	@$(BIN)/python deploy/stage destroy $(TOOL) $(STAGE)

E2E := $(BIN)/pytest -q --dose whole tests/e2e/test_aws_stage.py
# ENDPOINT alone is AWS's, of an emulator for instance; with SECRET_KEY it is the API of a stage.
e2e: $(VENV)/.installed-dev ## Run the tests of a stage on AWS: STAGE=… or ENDPOINT=… (docs/aws-stages.md)
ifdef SECRET_KEY
	@TILLWAY_E2E='{"url": "$(ENDPOINT)", "secret_key": "$(SECRET_KEY)"}' $(E2E)
else ifdef ENDPOINT
	@TILLWAY_E2E_AWS='$(ENDPOINT)' $(E2E)
else
	@TILLWAY_E2E="$$(cat build/aws/$(or $(STAGE),$$($(BIN)/python deploy/stage name)).json)" $(E2E)
endif

clean: ## Remove the virtual environment (never a data directory)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Tillway needs Python 3.11 or newer on the PATH." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# uv installs exactly what uv.lock names, with its hashes. `--inexact` leaves uv itself where it is.
$(VENV)/.uv-$(UV_VERSION): $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/.installed: $(VENV)/.uv-$(UV_VERSION) pyproject.toml uv.lock
	$(BIN)/uv sync --quiet --locked --inexact --no-dev
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.uv-$(UV_VERSION) pyproject.toml uv.lock
	$(BIN)/uv sync --quiet --locked --inexact --all-extras
	@touch $@ $(VENV)/.installed
