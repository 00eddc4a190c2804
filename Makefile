# `make help` lists the targets. Everything is installed into $(VENV), nothing outside it.

PYTHON ?= python3
VENV ?= .venv
# Arguments for pytest and for the benchmarks, e.g. `make test PYTEST_ARGS="-k nystrom"`.
PYTEST_ARGS ?=
PYTEST_WORKERS ?= 2
BENCH_ARGS ?=
# On a machine without a network: `make test-gpu OFFLINE=1 VENV=/path/of/an/environment`, which has
# torch and what building needs; wheels of packages that it lacks are taken from the folder WHEELS.
OFFLINE ?=
WHEELS ?=
CONSTRAINTS ?= constraints.txt
# The oldest torch and triton that are supported, and what they can stand beside: triton 3.6 interprets
# kernels under NumPy below 2.5 only (compiled ones do not care), torch 2.11 refuses setuptools 82.
OLDEST := torch==2.11.0 triton==3.6.0 numpy==2.3.5 setuptools==81.0.0

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ifeq ($(OFFLINE),)
PIP_INSTALL := $(PIP) install -c $(CONSTRAINTS)
BUILD_REQUIREMENTS := setuptools cmake ninja pybind11 torch numpy
else
PIP_INSTALL := $(PIP) install --no-index --no-deps
BUILD_REQUIREMENTS := $(wildcard $(addsuffix /*.whl,$(WHEELS)))
endif
# An isolated build would fetch a second torch only for its headers.
BUILD_AND_INSTALL := $(PIP_INSTALL) --no-build-isolation

SOURCES := pyproject.toml setup.py CMakeLists.txt MANIFEST.in constraints.txt $(wildcard README.md) \
	$(shell find csrc gimp_fast kernels -type f -not -name '*.py[co]' -not -name '*.so')
NATIVE := $(wildcard csrc/*.h csrc/*.cpp csrc/*.cu)
BENCHMARKS := $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))

# Stamps: what is installed, as of when. A changed source is installed again.
READY := $(VENV)/.build-requirements
INSTALLED := $(VENV)/.installed
INSTALLED_ALL := $(VENV)/.installed-with-extras
LINTERS := $(VENV)/.linters

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-oldest test-gpu bench gpu-day format lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## install, and train on the synthetic cohort; replaces runs/demo
	rm -rf runs/demo
	$(BIN)/gimp-fast train --preset demo --out runs/demo

# One thread a worker: workers that all start a thread a core spend the time waiting for each other.
test: $(INSTALLED_ALL) ## install, and run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

test-oldest: ## the same under the oldest torch, in .venv-oldest; fetches gigabytes of CUDA libraries
	mkdir -p build
	grep -vE '$(subst $() ,|,$(foreach pin,$(OLDEST),^$(firstword $(subst ==, ,$(pin)))==))' \
		constraints.txt > build/constraints-oldest.txt
	printf '%s\n' $(OLDEST) >> build/constraints-oldest.txt
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=build/constraints-oldest.txt

test-gpu: $(INSTALLED_ALL) ## install, run what needs a CUDA GPU or is compiled for one, and compute-sanitizer
	$(BIN)/pytest -m "gpu or triton" $(PYTEST_ARGS)
	$(BIN)/python tests/kernels/sanitize.py

bench: $(INSTALLED_ALL) ## install, and run every benchmark; results in benchmarks/results
	@set -e; for script in $(BENCHMARKS); do \
		echo "$$script"; $(BIN)/python "$$script" $(BENCH_ARGS); \
	done

# The card is capped at 24 GB, the memory of an RTX 3090, where memory is what is asked.
gpu-day: test-gpu ## all that only a GPU can show: its tests, and its benchmarks beside every peer
	$(BIN)/python benchmarks/masked_l1.py --device cuda
	$(BIN)/python benchmarks/nystrom_attention.py --device cuda
	$(BIN)/python benchmarks/nystrom_attention.py --device cuda --level op
	$(BIN)/python benchmarks/training.py --device cuda --dtype bf16 --cap-gb 24 --largest-batch

format: $(LINTERS) ## format Python, C++ and CUDA sources in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)

lint: $(LINTERS) ## check style without changing a file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)

clean: ## remove builds and caches; keeps .venv and runs/
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find gimp_fast kernels tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(LINTERS): constraints.txt | $(BIN)/python
	$(PIP_INSTALL) ruff clang-format
	touch $@

$(READY): constraints.txt | $(BIN)/python
	$(if $(BUILD_REQUIREMENTS),$(PIP_INSTALL) $(BUILD_REQUIREMENTS))
	touch $@

# build/lib is removed first: it would put files back that the sources no longer have.
$(INSTALLED): $(READY) $(SOURCES)
	rm -rf build/lib*
	$(BUILD_AND_INSTALL) .
	touch $@

$(INSTALLED_ALL): $(READY) $(SOURCES)
	rm -rf build/lib*
	$(BUILD_AND_INSTALL) ".[test,bench,dev]"
	touch $(INSTALLED) $@
