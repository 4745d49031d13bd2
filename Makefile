# Everything a person does with this repository. Bare `make` lists it.
#
# The environment is .venv, made from locks/ with hashes and without resolving anything; it needs
# Python 3.11 or newer and nothing else. A target that needs it makes it, and remakes it when a lock changes.

# The first of these that is new enough; `make install PYTHON=/path/to/python` chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

NEW_ENOUGH = test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo 'Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python' >&2; exit 1; }

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCKS := locks/build.txt locks/dev.txt locks/model.txt
# No version that was published after this day gets into a lock: what is bad in a release shows in its first days.
LOCK_DATE := 2026-11-17
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header --exclude-newer $(LOCK_DATE)

# As many test processes as there are processors, up to four: each starts services of its own.
WORKERS ?= logical
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install run llamafactory engines-install check test engines bench evidence format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make .venv from the locks (the other targets do it by themselves)

run: install ## run everything on this machine: store, two CPU nodes, gateway, worker
	@$(BIN)/friendo up $(UP)

llamafactory: ## make LLaMA-Factory's own environment in ~/.cache/friendo (2 GB; for training, CPU)
	@$(NEW_ENOUGH)
	@$(PYTHON) -m locks.install_llamafactory

engines-install: ## make environments with vLLM and SGLang in ~/.cache/friendo (7 GB; for `make engines`)
	@$(NEW_ENOUGH)
	@$(PYTHON) -m locks.install_engines

check: install ## format, lint, types, import contracts, fast tests; under a minute
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -q tests/unit tests/contract

test: install ## all tests but those that need other engines; under ten minutes
	$(PYTEST) -m "not engines"

engines: install ## tests with real vLLM and SGLang on the CPU; about 25 minutes; makes what it needs (7 GB)
	$(BIN)/python -m bench.engines $(ENGINES)

bench: install ## measure the gateway's own cost beside other routers'
	$(BIN)/python -m bench.overhead

evidence: install engines-install ## measure what docs/answers.md shows, and draw it anew; hours, real engines
	$(BIN)/python -m bench.evidence $(PART)

format: install ## put the code into shape
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: ## resolve the dependencies again into locks/ (needs uv: `pip install uv`)
	@command -v uv >/dev/null || { echo 'make lock needs uv: pip install uv' >&2; exit 1; }
	$(COMPILE) pyproject.toml -o locks/gateway.txt
	$(COMPILE) pyproject.toml --extra worker -o locks/worker.txt
	$(COMPILE) pyproject.toml --extra local --extra worker --group dev -o locks/dev.txt
	sed -n 's/^requires = \["\(hatchling==[^"]*\)"\]$$/\1/p' pyproject.toml | $(COMPILE) - -o locks/build.txt
	printf '%s\n' llamafactory==0.9.5 networkx setuptools sympy | $(COMPILE) - -o locks/llamafactory-cpu.txt \
		--excludes locks/torch-cpu.txt --no-emit-package torchvision # the rest is what torch needs

clean: ## remove .venv, caches and build outputs; data in ~/.local/share/friendo stays
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): $(LOCKS) locks/install.py pyproject.toml
	@$(NEW_ENOUGH)
	@$(PYTHON) locks/install.py $(VENV)
	@touch $@
