# Shortcuts for work on cachemesh. They use the environment of CONTRIBUTING.md; `make test PYTHON=python3.13` takes another.
PYTHON ?= .venv/bin/python

.PHONY: lint types test bench

lint:  ## rules, format and layers
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

types:  ## mypy strict over the package, the tests and the examples
	$(PYTHON) -m mypy

test:  ## all but the soak
	$(PYTHON) -m pytest

bench:  ## figures against the floors and the peers; some minutes
	$(PYTHON) -m benchmarks

.PHONY: mutants
mutants:  ## does a test fail for each small change of the core? Some ten minutes
	rm -rf mutants
	CACHEMESH_EXAMPLES=8 $(PYTHON) -m mutmut run --max-children 2
	$(PYTHON) tests/core/mutants.py

.PHONY: soak
soak:  ## the long variants of the scenarios; an hour or so
	$(PYTHON) -m pytest tests/soak/scenarios.py tests/soak/redis.py tests/soak/sqlite.py tests/soak/fleet.py tests/soak/caches.py tests/soak/simulated_fleet.py tests/soak/tokens.py tests/soak/traces.py -o addopts=--import-mode=importlib -o python_files=*.py --durations=0
