# ml_platform on one machine. `make run` and `make test` do everything that they need, from an empty folder on.
#
# Only relative paths, and always `.venv/bin/python -m ...`: the scripts beside it break where the folder's name has a
# space in it. No virtual environment needs to be active.

PY := .venv/bin/python
READY := .venv/.ready
FIT := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# The first Python that is fit; a name on the PATH is not enough, it must start and be able to make an environment.
# Looked for where it is first needed, and once.
LOOK = $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c '$(FIT)' >/dev/null 2>&1 && echo "$$p" && break; done)
PYTHON ?= $(eval PYTHON := $(LOOK))$(PYTHON)
PIPELINE ?= nyc_flights
TESTS ?= ml_platform_tests
# The whole suite in two processes, a file of tests in one of them: much of its time is waiting for daemons. Some tests
# in one process, where what they do is seen as it happens.
SPREAD = $(if $(filter ml_platform_tests,$(TESTS)),-n 2 --dist loadfile --no-loadscope-reorder)

# Of another installation: Spark here is the one that requirements.lock names.
unexport PYTHONHOME SPARK_HOME
# One thing after the other, also under `make -j`: Java is asked for before anything is downloaded.
.NOTPARALLEL:
.PHONY: help run reproduce ui test test-all lint format bench clean java browser python setup doctor

help:
	@echo 'make run        set up, land the flight data, train and register a model, say what came of it'
	@echo 'make reproduce  build the registered champion once more from the bytes that landed, and compare'
	@echo 'make ui         look at it in the browser'
	@echo 'make test       set up, and run the tests; make test TESTS=ml_platform_tests/cli for some'
	@echo 'make test-all   and the long ones'
	@echo 'make lint       ruff and mypy; make format mends what ruff can'
	@echo 'make bench      every benchmark, one after the other'
	@echo 'make doctor     is this machine ready?'
	@echo 'make clean      remove the environment and caches; what is in .ml_platform stays'

run: java $(READY)
	@$(PY) -m ml_platform.cli land '$(PIPELINE)'
	@$(PY) -m ml_platform.cli run '$(PIPELINE)'

reproduce: java $(READY)
	@$(PY) -m ml_platform.cli models reproduce '$(PIPELINE)@champion'

ui: java $(READY)
	@$(PY) -m ml_platform.cli ui $(ARGS)

doctor: $(READY)
	@$(PY) -m ml_platform.cli doctor

test: java browser $(READY)
	@$(PY) -m pytest -m 'not slow' $(SPREAD) $(TESTS)

test-all: java browser $(READY)
	@$(PY) -m pytest $(TESTS)

lint: $(READY)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(READY)
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: java $(READY)
	@set -e; for file in benchmarks/*.py benchmarks/*/__main__.py; do \
		name=$${file#benchmarks/}; name=$${name%/__main__.py}; name=$${name%.py}; \
		case "$$name" in __init__|common) continue;; esac; \
		echo "== python -m benchmarks.$$name"; $(PY) -m "benchmarks.$$name"; \
	done

setup: $(READY)

java: python
	@'$(PYTHON)' -I ml_platform/java.py "$$JAVA_HOME"

# The browser test drives the real UI. Root on Debian, as in CI, gets the browser; others are told how.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v "$$name" >/dev/null && exit 0; done; \
	if [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
		echo 'Installing Chromium for the browser test'; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends chromium fonts-liberation; \
	else \
		echo 'Chromium is needed for the browser test, and was not found on the PATH.' >&2; \
		echo '  fix: Debian, Ubuntu   sudo apt-get install -y chromium' >&2; \
		echo '       Fedora, RHEL     sudo dnf install -y chromium' >&2; \
		echo '       macOS            brew install --cask google-chrome, and put it on the PATH as google-chrome' >&2; \
		exit 1; \
	fi

python:
	@'$(PYTHON)' -c '$(FIT)' 2>/dev/null || { \
		echo 'Python 3.11, 3.12 or 3.13 with venv is needed, and was not found.' >&2; \
		echo '  got: $(or $(PYTHON),no such python on the PATH)' >&2; \
		echo '  fix: Debian, Ubuntu   sudo apt-get install -y python3 python3-venv' >&2; \
		echo '       Fedora, RHEL     sudo dnf install -y python3.12' >&2; \
		echo '       macOS            brew install python@3.12' >&2; \
		echo '       or name one that is there: make run PYTHON=/path/to/python3.12' >&2; \
		exit 1; }

# The stamp is written last: an interrupted set-up is taken up again, and a finished one is repeated only when what it
# depends on has changed.
$(READY): requirements.lock pyproject.toml
	@$(MAKE) --no-print-directory python PYTHON='$(PYTHON)'
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
		echo 'Making the environment .venv with $(PYTHON)'; '$(PYTHON)' -m venv --clear .venv; }
	@echo 'Installing what requirements.lock names (some minutes the first time)'
	@$(PY) -m pip install --disable-pip-version-check --progress-bar on -r requirements.lock
	@$(PY) -m pip install --disable-pip-version-check --quiet --no-build-isolation --no-deps --editable .
	@$(PY) -m pip check --disable-pip-version-check
	@touch $(READY)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo 'Data, models and history in .ml_platform stay; remove that folder to begin anew.'
