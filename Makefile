# `make` lists what there is. Needs make (GNU, 3.81 or newer) and Python 3.11, nothing else.

# The Python to build .venv with; when empty, the first of CANDIDATES that is a 3.11.
PYTHON ?=
CANDIDATES := python3.11 python3 python

# Options for run, servers, test, faults and bench: make run ARGS="--users 100"
ARGS ?=
# Processes that run the tests at once; 0 runs them one after the other in make's own.
JOBS ?= 2
KILLS ?= 200
# A folder with Nuclio's source, version 1.14.1, for `make nuclio`.
NUCLIO ?=
UV ?= uv

VENV := .venv
BENCH := .venv-bench
KFP := .venv-kfp
S3 := .venv-s3
TRITON := .venv-triton

# Bytecode is written even where the shell says not to: each of a run's processes imports the same thousand files.
export PYTHONDONTWRITEBYTECODE :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help env s3 triton servers run test lint faults nuclio bench kfp lab lock clean

help:  ## list the targets
	@echo 'make TARGET [ARGS="options"] [PYTHON=/path/to/python3.11]'
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' Makefile

env:  ## build .venv from requirements.txt if it is missing or stale; the other targets do it by themselves
	@$(call environment,$(VENV),requirements.txt,$(install_project))

s3:  ## build .venv-s3, the S3 server that the tests of logs and models on S3 need; without it they are skipped
	@$(call environment,$(S3),requirements-s3.txt,)

triton:  ## build .venv-triton, the public client that the model server is tested with; without it that test is skipped
	@$(call environment,$(TRITON),requirements-triton.txt,)

servers: env  ## start Kafka and Redis for README's example, until Ctrl-C; others: ARGS="redis:6380 s3"
	@$(VENV)/bin/python -m servers $(ARGS)

run: env  ## run the pipeline: python pipeline.py run $(ARGS)
	@$(VENV)/bin/python pipeline.py run $(ARGS)

test: lint  ## lint, type check and run the tests
	@$(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: env  ## ruff and mypy
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy

faults: env  ## kill functions at random moments, 200 times (KILLS=200), forge messages, and count every row
	@MODELSTREAM_KILLS=$(KILLS) MODELSTREAM_MUTATIONS=200000 $(VENV)/bin/python -m pytest -m faults $(ARGS)

nuclio: env  ## test the functions in Nuclio's own wrapper and processor, from its source in NUCLIO=FOLDER (needs Go)
	@[ -n "$(NUCLIO)" ] || { echo 'name a folder with the source of Nuclio 1.14.1: make nuclio NUCLIO=FOLDER'; exit 2; }
	@MODELSTREAM_NUCLIO="$(abspath $(NUCLIO))" $(VENV)/bin/python -m pytest -n 0 -s tests/nuclio $(ARGS)

bench: env  ## measure everything beside Polars, Bytewax and Quix Streams, and write docs/performance.md (25 min, a quiet machine)
	@$(call environment,$(BENCH),requirements-bench.txt,)
	@$(BENCH)/bin/python -m bench.run $(ARGS)

kfp:  ## build .venv-kfp, which compiles the workflow for `pipeline.py deploy`
	@$(call environment,$(KFP),requirements-kfp.txt,)

lab: env  ## open the notebooks in Jupyter
	@cmp -s requirements-lab.txt $(VENV)/lab-made-from || { \
	  echo "Adding Jupyter to $(VENV) ..." && \
	  $(pip_install) -r requirements-lab.txt && cp requirements-lab.txt $(VENV)/lab-made-from; }
	@$(VENV)/bin/python -m jupyterlab functions $$([ "$$(id -u)" != 0 ] || echo --allow-root) $(ARGS)

lock:  ## resolve requirements*.in again (maintainers; needs uv)
	@$(call lock,requirements.txt,requirements.in requirements-dev.in)
	@$(call lock,requirements-lab.txt,-c requirements.txt requirements-lab.in)
	@$(call lock,requirements-bench.txt,requirements-bench.in)
	@$(call lock,requirements-kfp.txt,requirements-kfp.in)
	@$(call lock,requirements-s3.txt,requirements-s3.in)
	@$(call lock,requirements-triton.txt,requirements-triton.in)

clean:  ## remove the environments and caches; what runs left in data/ stays
	rm -rf $(VENV) $(BENCH) $(S3) $(KFP) $(TRITON) build *.egg-info bench/data .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# How an environment is made.
#
# It is stale when its lock or its place differs from the one that it was made from (by content: a checkout changes
# every file's time), or when its Python is gone. Then it is made from scratch, so nothing is left of an older lock.
# pip comes first: an older one takes 30 s longer to read the index for this list. Nothing is compiled to bytecode
# ahead of its first import: of the 40 s that takes, most is for modules that nobody imports.
pip_install = $(VENV)/bin/python -m pip install --quiet --no-compile --no-deps --require-hashes --no-build-isolation

define environment
set -e; \
made_from="$$(cksum < $(2)) $(CURDIR)"; \
if [ ! -x $(1)/bin/python ] || [ "$$(cat $(1)/made-from 2>/dev/null)" != "$$made_from" ]; then \
  $(find_python); \
  echo "Making $(1) from $(2) with $$python (once, about a minute) ..."; \
  rm -rf $(1); \
  "$$python" -m venv $(1); \
  sed -n -e '/^pip==/,/[^\\]$$/p' -e '/^setuptools==/,/[^\\]$$/p' $(2) > $(1)/first.txt; \
  $(pip_install:$(VENV)/%=$(1)/%) -r $(1)/first.txt; \
  $(pip_install:$(VENV)/%=$(1)/%) -r $(2); \
  $(3) \
  echo "$$made_from" > $(1)/made-from; \
fi
endef

define install_project
PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .; \
if [ -e modelstream/runner/warm.py ]; then $(VENV)/bin/python -m modelstream.runner.warm; fi;
endef

define find_python
python=; seen=; \
for candidate in $(if $(PYTHON),"$(PYTHON)",$(CANDIDATES)); do \
  version="$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo missing)"; \
  if [ "$$version" = 3.11 ]; then python="$$candidate"; break; fi; \
  seen="$$seen$${seen:+, }$$candidate ($$version)"; \
done; \
if [ -z "$$python" ]; then \
  echo "This needs Python 3.11 and found none; looked for: $$seen." \
       "Install it, or say where it is: make env PYTHON=/path/to/python3.11" >&2; \
  exit 1; \
fi
endef

# One lock for Linux and macOS; the marker that says just that on every line is left out.
define lock
UV_CUSTOM_COMPILE_COMMAND="make lock" \
$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --output-file $(1) $(2); \
sed -e "s/ ; python_full_version < '3.12' and (sys_platform == 'darwin' or sys_platform == 'linux')//" \
    -e "s/python_full_version < '3.12' and //" \
    -e "s/ and (sys_platform == 'darwin' or sys_platform == 'linux')//" $(1) > $(1).new; \
mv $(1).new $(1)
endef
