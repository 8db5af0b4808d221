# Two commands do everything: `make matrix` and `make test`. What is missing is set up first; `make help` lists the rest.

# The Python that .venv is made from; by default the newest usable one, 3.11 or later.
PYTHON ?=
# Options of the matrix and of pytest, as in `make matrix MATRIX="--scheme status-quo"`.
MATRIX ?= --orders --json out/matrix.json --html out/matrix.html
PYTEST ?=
# How long `make soak` keeps a QEMU busy.
SOAK_SECONDS ?= 600
# How long each part of `make fuzz` runs.
FUZZ_SECONDS ?= 60

comma := ,
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup qemu matrix test kernel bench soak check fuzz fuzz-faults sanitize analyse mypy-tree wheel clean

help:
	@echo 'make matrix   run every attribute scheme against the probe device; tables, out/matrix.json, out/matrix.html'
	@echo 'make test     run all tests'
	@echo 'make kernel   build the Linux that has every attribute scheme, once; make test does it first'
	@echo 'make bench    measure the server against what the operating system costs: a table and out/bench.json'
	@echo 'make check    ruff, ruff format and mypy --strict'
	@echo 'make soak     10,000 connects and SOAK_SECONDS of a QEMU that resets and hot-plugs: what the server keeps'
	@echo 'make fuzz     fuzz the hot path and the server for FUZZ_SECONDS each; needs clang'
	@echo 'make fuzz-faults  put faults into the hot path, one at a time: the fuzzers must find each'
	@echo 'make sanitize run the tests of bridge and devices with an extension built with ASan and UBSan'
	@echo 'make analyse  compile all C with every warning an error, and analyse it'
	@echo 'make wheel    build the wheel into dist/'
	@echo 'make setup    only set up what the others need: .venv, QEMU, a cross compiler'
	@echo 'make clean    remove what was built here; .venv and the cache of fetched parts stay'
	@echo 'PYTHON=...    the Python to make .venv from; MATRIX=... and PYTEST=... are options of the two commands'

matrix: setup
	@mkdir -p out
	$(BIN)/pyvfio-user matrix $(MATRIX)

test: setup kernel
	$(BIN)/pytest $(PYTEST)

kernel: setup
	@$(BIN)/pyvfio-user kernel --quiet

bench: setup
	$(BIN)/python -m tests.bench $(BENCH)

soak: setup
	@SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m tests.soak

check: $(STAMPS)/installed mypy-tree
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	MYPYPATH=out/mypy $(BIN)/mypy -p pyvfio_user
	MYPYPATH=out/mypy:. $(BIN)/mypy tests .ci/import_wheel.py

wheel: $(STAMPS)/installed
	@rm -rf build dist
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:
	rm -rf build dist out *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find bridge devices guest tests -name __pycache__ -prune -exec rm -rf {} +

setup: $(STAMPS)/installed
	@$(BIN)/python -c '' || { echo 'missing: the Python that $(VENV) was made from; remove $(VENV) and try again' >&2; exit 1; }
	@$(BIN)/pyvfio-user setup --quiet

fuzz: $(STAMPS)/installed
	@$(BIN)/python -m tests.fuzz.run --seconds $(FUZZ_SECONDS)

fuzz-faults: $(STAMPS)/installed
	@$(BIN)/python -m tests.fuzz.faults

sanitize: $(STAMPS)/installed
	@$(BIN)/python -m tests.sanitizers.run

analyse: $(STAMPS)/installed
	@$(BIN)/python -m tests.sanitizers.analyse

# An editable install cannot be followed by mypy: it is shown the packages under their import names through links.
mypy-tree:
	@rm -rf out/mypy
	@mkdir -p out/mypy/pyvfio_user
	@for folder in bridge devices guest; do ln -s "$(CURDIR)/$$folder" out/mypy/pyvfio_user/$$folder; done

# What the machine itself must have. Each absent thing is one line, with the Debian package that brings it.
define CHECK_MACHINE
lacking=0
need() { printf 'missing: %s; install the Debian package %s\n' "$$1" "$$2" >&2; lacking=1; }
command -v git >/dev/null || need git git
printf '#include <stdlib.h>\n' | $${CC:-cc} -E -x c - >/dev/null 2>&1 \
  || need 'a C compiler with the C library headers' build-essential
python='' worst='Python 3.11 or newer' package=python3
for candidate in $${PYTHON:-python3.20 python3.19 python3.18 python3.17 python3.16 python3.15 python3.14 python3.13 \
  python3.12 python3.11 python3}; do
  lacks=$$("$$candidate" -c "$$PROBE" 2>/dev/null) || continue
  if [ -z "$$lacks" ]; then python=$$candidate; break; fi
  [ "$$package" = python3 ] && worst="$${lacks% *} of $$candidate" package=$${lacks##* }
done
[ -n "$$python" ] || need "$$worst" "$$package"
[ $$lacking = 0 ] || exit 1
endef
export CHECK_MACHINE

# Prints nothing for a usable Python, else what it lacks and the package; fails for one that is too old.
define PROBE
import importlib.util, os, sys, sysconfig
if sys.version_info < (3, 11):
    sys.exit(1)
name = "python%d.%d" % sys.version_info[:2]
if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
    print("the venv module", name + "-venv")
elif not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print("the headers (Python.h)", name + "-dev")
endef
export PROBE

$(STAMPS)/venv:
	@eval "$$CHECK_MACHINE"; \
	echo "==> $(VENV), made with $$("$$python" -c 'import sys; print(sys.executable, sys.version.split()[0])')"; \
	"$$python" -m venv $(VENV)
	@echo '==> a pip that knows dependency groups'
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1' || { $(PIP_FAILED); }
	@mkdir -p $(@D) && touch $@

# The Python package brings a cross compiler of 100 MB: only where the machine has none.
EXTRAS := guest$(if $(shell command -v aarch64-linux-gnu-gcc),,$(comma)compiler)

$(STAMPS)/installed: $(STAMPS)/venv pyproject.toml setup.py $(wildcard bridge/hotpath/*.c bridge/hotpath/*.h bridge/hotpath/*.py)
	@echo '==> pyvfio-user and what it needs, into $(VENV)'
	@$(BIN)/pip install --disable-pip-version-check --group test --group check --editable '.[$(EXTRAS)]' \
	  || { $(PIP_FAILED); }
	@touch $@

PIP_FAILED = echo 'the step failed: pip says why above. It needs a package index: set up your own with `pip config`' >&2; exit 1
