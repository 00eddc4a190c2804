# `make help` lists the targets. Everything is installed into $(VENV), nothing outside it.

PYTHON ?= python3
VENV ?= .venv
# Arguments for pytest and for the benchmarks, e.g. `make test PYTEST_ARGS="-k nystrom"`.
PYTEST_ARGS ?=
# Tests at a time: one for each core, but 2 to 8; each may need 2 GB.
PYTEST_WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); \
	echo $$((cores < 2 ? 2 : cores > 8 ? 8 : cores)))
BENCH_ARGS ?=
# Arguments for `make attack`: --record writes benchmarks/results/attack.json, --help lists the others.
ATTACK_ARGS ?=
# Parts of `make gpu-day`, e.g. PARTS="2 3", and other options of benchmarks/gpu_day.py. With DRY=1 it
# needs no GPU and measures nothing.
PARTS ?=
DRY ?=
GPU_DAY_ARGS ?=
# Without a network: `make test OFFLINE=1 VENV=/path/of/an/environment WHEELS=/folder/of/wheels`. The
# environment has torch and the build tools; packages that it lacks are installed from the wheels.
OFFLINE ?=
WHEELS ?=
CONSTRAINTS ?= constraints.txt
# The oldest supported torch and triton, with the versions that they need: the interpreter of triton
# 3.6 fails under NumPy 2.5 (compiled kernels do not use it), and torch 2.11 refuses setuptools 82.
OLDEST := torch==2.11.0 triton==3.6.0 numpy==2.3.5 setuptools==81.0.0

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ifeq ($(OFFLINE),)
PIP_INSTALL := $(PIP) install -c $(CONSTRAINTS)
BUILD_REQUIREMENTS := setuptools cmake ninja pybind11 torch numpy
# As in the extra docs; the package itself is installed by then.
DOCS_REQUIREMENTS := mkdocs mkdocs-material 'mkdocstrings[python]' griffelib
else
PIP_INSTALL := $(PIP) install --no-index --no-deps
BUILD_REQUIREMENTS := $(wildcard $(addsuffix /*.whl,$(WHEELS)))
DOCS_REQUIREMENTS := $(BUILD_REQUIREMENTS)
endif
# An isolated build would download a second torch for its headers alone.
BUILD_AND_INSTALL := $(PIP_INSTALL) --no-build-isolation

SOURCES := pyproject.toml setup.py CMakeLists.txt MANIFEST.in constraints.txt $(wildcard README.md) \
	$(shell find csrc gimp_fast kernels -type f -not -name '*.py[co]' -not -name '*.so')
NATIVE := $(wildcard csrc/*.h csrc/*.cuh csrc/*.cpp csrc/*.cu tests/cuda_on_cpu/*.h tests/cuda_on_cpu/*.cpp)
# Not among `make bench`: the comparison of survival, which takes hours, what reads its runs, and those
# of a GPU.
BENCHMARKS := $(filter-out benchmarks/_% benchmarks/gpu_% benchmarks/survival_% \
	benchmarks/missing_modality.py,$(wildcard benchmarks/*.py))

# Stamps of what is installed; a changed source is installed again.
READY := $(VENV)/.build-requirements
INSTALLED := $(VENV)/.installed
INSTALLED_ALL := $(VENV)/.installed-with-extras
INSTALLED_DOCS := $(VENV)/.installed-with-docs
LINTERS := $(VENV)/.linters

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test quick attack test-oldest test-gpu bench gpu-day docs format lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## install, and train on a synthetic cohort; replaces runs/demo
	rm -rf runs/demo
	$(BIN)/gimp-fast train --preset demo --out runs/demo

# One thread a worker: with a thread a core each, workers wait for each other. An idle worker takes
# tests from a busy one, so that all end together.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(PYTEST_WORKERS) --dist worksteal

test: $(INSTALLED_ALL) ## install, and run all tests
	$(PYTEST) $(PYTEST_ARGS)

quick: $(INSTALLED_ALL) ## install, and run the tests that take no builds, compilers or whole commands
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

attack: $(INSTALLED_ALL) ## install, and damage every file that a command reads, 10,000 times; kill commands
	$(BIN)/python tests/attack/run.py $(ATTACK_ARGS)

test-oldest: ## all tests under the oldest torch, in .venv-oldest; downloads gigabytes of CUDA libraries
	mkdir -p build
	grep -vE '$(subst $() ,|,$(foreach pin,$(OLDEST),^$(firstword $(subst ==, ,$(pin)))==))' \
		constraints.txt > build/constraints-oldest.txt
	printf '%s\n' $(OLDEST) >> build/constraints-oldest.txt
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=build/constraints-oldest.txt

test-gpu: $(INSTALLED_ALL) ## install, run the tests that use a CUDA GPU, and compute-sanitizer
	$(BIN)/pytest -m "gpu or triton" $(PYTEST_ARGS)
	$(BIN)/python tests/kernels/sanitize.py

bench: $(INSTALLED_ALL) ## install, and run every benchmark; results go to benchmarks/results
	@set -e; for script in $(BENCHMARKS); do \
		echo "$$script"; $(BIN)/python "$$script" $(BENCH_ARGS); \
	done

gpu-day: $(INSTALLED_ALL) ## tests and benchmarks of a GPU, in parts below 150 s; PARTS="2 3", DRY=1
	$(BIN)/python benchmarks/gpu_day.py $(if $(PARTS),--parts $(PARTS)) \
		$(if $(DRY),--dry-run) $(GPU_DAY_ARGS)

docs: $(INSTALLED_DOCS) ## build the documentation site into build/site; every warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

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

# build/lib is removed first, as it would bring back files that the sources no longer have.
$(INSTALLED): $(READY) $(SOURCES)
	rm -rf build/lib*
	$(BUILD_AND_INSTALL) .
	touch $@

# The reference of Python is read from the sources, and checked against the installed package.
$(INSTALLED_DOCS): $(INSTALLED)
	$(PIP_INSTALL) $(DOCS_REQUIREMENTS)
	touch $@

$(INSTALLED_ALL): $(READY) $(SOURCES)
	rm -rf build/lib*
	$(BUILD_AND_INSTALL) ".[test,bench,dev]"
	touch $(INSTALLED) $@
