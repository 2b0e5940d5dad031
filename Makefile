# Tasks of a developer; CONTRIBUTING.md says when. `make` lists them.
#   make quick ARGS="tests/theory -x"       ARGS go to the tool
#   make quick PYTHON=python3.12            another interpreter than that of .venv

PYTHON ?= $(if $(wildcard .venv/bin/python),$(CURDIR)/.venv/bin/python,python3)
ARGS ?=
BEFORE ?= origin/main

.PHONY: help setup test quick oracle bench docs figures lint format types wheel

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## /\1 /p' $(MAKEFILE_LIST) | while read -r task text; do printf '%-10s%s\n' "$$task" "$$text"; done

setup:  ## .venv with everything that tests and checks need, and the hooks of pre-commit
	python3 -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e '.[test,dev]'
	.venv/bin/pre-commit install

test:  ## all tests, as CI runs them
	$(PYTHON) -m pytest -n 2 --dist worksteal $(ARGS)

quick:  ## the tests without those marked slow
	$(PYTHON) -m pytest -m "not slow" $(ARGS)

oracle:  ## every study's numbers, here and at the commit BEFORE (origin/main)
	$(PYTHON) -m benchmarks.oracle $(BEFORE) $(ARGS)

bench:  ## speed of the engines: minutes on a machine that does nothing else
	$(PYTHON) -m benchmarks.sgd $(ARGS)

docs:  ## the examples of README, docs and docstrings run
	$(PYTHON) -m pytest tests/studies/test_examples.py tests/api/test_docs.py tests/test_doctests.py $(ARGS)

figures:  ## docs/gallery: figures and tables of the studies that are stored in results/
	$(PYTHON) -c "from kdsim.cli import main; raise SystemExit(main())" gallery $(ARGS)

lint:  ## ruff: rules and format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format:  ## the source as `make lint` wants it, as far as ruff can
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# studies and figures are imported as kdsim.studies and kdsim.figures, so mypy looks at a tree of links that has them there.
types:  ## mypy over kdsim, studies and figures
	rm -rf build/types
	mkdir -p build/types/kdsim
	ln -s $(CURDIR)/kdsim/* $(CURDIR)/studies $(CURDIR)/figures build/types/kdsim
	cd build/types && $(PYTHON) -m mypy --config-file ../../setup.cfg $(ARGS)

wheel:  ## dist/: an sdist, the wheel that is built from it, both checked
	rm -rf build/lib dist
	$(PYTHON) -m build
	$(PYTHON) -m twine check --strict dist/*
	$(PYTHON) -m check_wheel_contents dist
