# The two commands: `make pipeline-run` and `make test`. Each installs what it needs by itself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON3 ?= python3.11
STATE_DIR ?= .plsc
EXPERIMENT ?= glyphs
OVERRIDES ?=
DATA_URI ?=
RESUME ?=
IMAGES ?= $(wildcard $(STATE_DIR)/samples/*.jpg)
MODEL ?=
BASE_IMAGE ?=
PIP_CONF ?=
CA_BUNDLE ?=
ONLY ?=
CACHE ?=
UV_VERSION := 0.13.9

VENV := .venv
PYTHON := $(VENV)/bin/python
UV := $(VENV)/bin/uv
TRITON_VENV := .venv-triton
EXTRAS := preprocess,train,evaluate,export,deploy,client,cluster,pipelines,dev
PACKAGES := plsc components pipelines benchmarks tests images

# Recipes read these as "$$NAME", so that a shell never parses what a user wrote.
export STATE_DIR EXPERIMENT OVERRIDES DATA_URI RESUME

# Nothing of the caller's Python leaks in; one thread per process unless the stage says otherwise.
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help install constraints pipeline-run query services-up services-down services-status test test-fast \
	test-cluster \
	images images-push images-down test-images \
	pipeline-follow pipeline-terminate pipeline-retry cluster-up cluster-images cluster-down \
	lint format compile clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# $(call need,TEST,PACKAGE): see that TEST succeeds; if not, install Debian's PACKAGE (as root), or name it.
define need
	@$(1) >/dev/null 2>&1 || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing Debian's $(2) ..."; \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends $(2) >/dev/null; \
		else echo "$(2) is missing: sudo apt-get install $(2), then run this again" >&2; exit 1; fi; }
endef

# --- environments ----------------------------------------------------------------------------------

install: $(VENV)/.installed $(TRITON_VENV)/.installed  ## Install everything into .venv and .venv-triton

$(UV):
	$(call need,command -v $(PYTHON3),python3.11)
	$(call need,$(PYTHON3) -c "import ensurepip",python3.11-venv)
	@$(PYTHON3) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/.installed: pyproject.toml constraints.txt | $(UV)
	@echo "Installing plsc into $(VENV) (about 6 GB with torch; once) ..."
	@$(UV) pip install --quiet --python $(PYTHON) -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

$(TRITON_VENV)/.installed: images/triton/constraints.txt | $(UV)
	$(call need,$(PYTHON3) -c "import ctypes; ctypes.CDLL('libpython3.11.so.1.0')",libpython3.11)
	@echo "Installing the Triton server into $(TRITON_VENV) (about 400 MB; once) ..."
	@$(UV) venv --quiet --allow-existing --python $(PYTHON3) $(TRITON_VENV)
	@$(UV) pip install --quiet --python $(TRITON_VENV)/bin/python -c $< nvidia-pytriton onnxruntime
	@touch $@

constraints: $(UV)  ## Resolve constraints.txt anew from pyproject.toml (kfp stays where it is)
	@grep -E '^kfp(-kubernetes)?==' constraints.txt > $(VENV)/.kept
	@$(UV) pip compile --quiet pyproject.toml --all-extras --python-version 3.11 --no-emit-index-url \
		--no-header --no-annotate -c $(VENV)/.kept -o constraints.txt

# --- the river -------------------------------------------------------------------------------------

# With KFP_HOST it runs on that cluster (pipelines/cluster): KFP_TOKEN_FILE, KFP_NAMESPACE, ... as needed.
pipeline-run compile: export REGISTRY := $(REGISTRY)
pipeline-run compile: export TAG := $(TAG)
pipeline-run compile: cache_option = $(if $(filter off,$(CACHE)),--no-cache,$(if \
	$(filter-out on,$(CACHE)),$(error expected CACHE=on or CACHE=off, found CACHE=$(CACHE))))
pipeline-follow pipeline-terminate pipeline-retry: export RUN := $(RUN)

pipeline-run: install  ## Run the pipeline to a live Triton endpoint [EXPERIMENT= OVERRIDES= DATA_URI= RESUME= CACHE=off]
	@$(PYTHON) -m pipelines run --state-dir "$$STATE_DIR" --experiment "$$EXPERIMENT" \
		--overrides "$$OVERRIDES" --data-uri "$$DATA_URI" --resume "$$RESUME" \
		--registry "$$REGISTRY" --tag "$$TAG" $(cache_option)

pipeline-follow: install  ## Show a run on the cluster at KFP_HOST until it ends (RUN=id)
	@$(PYTHON) -m pipelines follow --state-dir "$$STATE_DIR" "$$RUN"

pipeline-terminate: install  ## End a run on the cluster (RUN=id); a retry goes on with it
	@$(PYTHON) -m pipelines terminate "$$RUN"

pipeline-retry: install  ## Go on with a run that failed or was terminated, and show it (RUN=id)
	@$(PYTHON) -m pipelines retry --state-dir "$$STATE_DIR" "$$RUN"

query: install  ## Ask the endpoint for embeddings of images [IMAGES="a.jpg b.jpg" MODEL=]
	@$(PYTHON) -m pipelines.services exec --state-dir "$$STATE_DIR" -- \
		$(PYTHON) -m plsc.client encode $(if $(MODEL),--model '$(MODEL)') $(IMAGES)

compile: install  ## Write pipelines/plsc.yaml, the pipeline for upload in the KFP UI [REGISTRY= TAG= CACHE=off]
	@$(PYTHON) -m pipelines compile --registry "$$REGISTRY" --tag "$$TAG" $(cache_option)

services-up: install  ## Start the S3 server and Triton
	@$(PYTHON) -m pipelines.services up --state-dir "$$STATE_DIR"

services-status: install  ## Tell what runs, and where
	@$(PYTHON) -m pipelines.services status --state-dir "$$STATE_DIR"

services-down: install  ## Stop everything that was started
	@$(PYTHON) -m pipelines.services down --state-dir "$$STATE_DIR"

# --- images ----------------------------------------------------------------------------------------

# Needs no environment: Python, docker (Debian's is installed where there is none) and a package index.
images images-push: export REGISTRY := $(REGISTRY)
images images-push: export TAG := $(TAG)
images: export BASE_IMAGE := $(BASE_IMAGE)
images: export PIP_CONF := $(PIP_CONF)
images: export CA_BUNDLE := $(CA_BUNDLE)

images:  ## Build the images [REGISTRY= TAG= BASE_IMAGE= PIP_CONF= CA_BUNDLE= ONLY="train deploy"]
	$(call need,command -v $(PYTHON3),python3.11)
	@$(PYTHON3) -m images.build build $(ONLY)

images-push:  ## Push the images to their registry (REGISTRY=host/path) [TAG= ONLY=]
	@$(PYTHON3) -m images.build push $(ONLY)

images-down:  ## Stop the dockerd that `make images` started, if it did (its images stay)
	@$(PYTHON3) -m images.engine stop

test-images: install  ## Test the images that `make images` built, in containers
	@CONTAINERS=required SERVICES=required $(PYTHON) -m pytest tests/images -q --no-header

# --- a cluster on this machine ---------------------------------------------------------------------

cluster-up: install  ## Make a cluster with kind: KFP, the training operator, our images and objects
	@$(PYTHON) -m pipelines.kind up

cluster-images: install  ## Copy the images that `make images` built into that cluster
	@$(PYTHON) -m pipelines.kind images

cluster-down: install  ## Remove that cluster, and all that is in it
	@$(PYTHON) -m pipelines.kind down

# --- quality ---------------------------------------------------------------------------------------

test: install lint  ## Run lint and all tests, with coverage
	@SERVICES=required $(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		--cov --cov-report=term-missing:skip-covered --cov-fail-under=85

test-fast: install  ## Run the tests that need no server and take no time
	@$(PYTHON) -m pytest -m 'not slow and not services'

test-cluster: install  ## Run the cluster's tests where KUBECONFIG points [LOAD_IMAGES= REGISTRY= TAG=]
	@command -v kubectl >/dev/null || { echo "kubectl is missing: install your cluster's" >&2; exit 1; }
	@CLUSTER=required $(PYTHON) -m pytest tests/cluster -q --no-header -x -p no:cacheprovider

lint: install  ## Check style, types, imports and spelling
	@$(VENV)/bin/ruff format --check --quiet $(PACKAGES)
	@$(VENV)/bin/ruff check --quiet $(PACKAGES)
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --verbose 2>/dev/null | tail -4; exit $${PIPESTATUS[0]}
	@$(VENV)/bin/codespell

format: install  ## Format the code
	@$(VENV)/bin/ruff check --fix --quiet $(PACKAGES) || true
	@$(VENV)/bin/ruff format --quiet $(PACKAGES)

clean: services-down  ## Stop the services and remove all local state (environments stay)
	@rm -rf "$$STATE_DIR" .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
