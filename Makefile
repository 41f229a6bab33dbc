# make run, make test: all that a fresh machine needs. The other targets are listed by make help.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

# bonsai, for accounts in LDAP, is built from source: only where its headers are (libldap2-dev, libsasl2-dev).
LDAP := $(and $(wildcard /usr/include/ldap.h),$(wildcard /usr/include/sasl/sasl.h))

.PHONY: run demo docs test lint types bench bench-quick bench-flat bench-calls bench-profile help clean fuzz crash diagram
.DEFAULT_GOAL := help

$(VENV)/.core: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .[test,dev]
	$(if $(LDAP),-$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .[ldap])
	touch $@

run: $(VENV)/.core  ## set up and serve on the embedded defaults (ARGS="--listen 127.0.0.1:0 --state ./state")
	@exec $(BIN)/python -m smtpd_core serve $(ARGS)

demo: $(VENV)/.core  ## two servers and one mail with STARTTLS, from one to the other, with both dialogues
	@exec $(BIN)/python -m smtpd_core demo $(ARGS)

test: $(VENV)/.test  ## the whole test suite
	$(BIN)/python -m pytest -n 4 $(ARGS)

lint: $(VENV)/.test  ## style
	$(BIN)/ruff check .

types: $(VENV)/.test  ## types, strictly
	$(BIN)/mypy

BENCH := --workloads "$(WORKLOADS)" --peers "$(PEERS)" --interpreters "$(INTERPRETERS)" $(ARGS)

bench: $(VENV)/.test  ## compare with peers (WORKLOADS=W1,W3 PEERS=aiosmtpd RUNS=5 INTERPRETERS=/path/bin/python3.14t)
	$(BIN)/python -m tests.bench.run --install --runs $(or $(RUNS),5) --out "$(or $(OUT),docs/bench)" $(BENCH)

bench-quick: $(VENV)/.test  ## a look at it in under two minutes; writes nothing
	$(BIN)/python -m tests.bench.run --quick $(BENCH)

bench-flat: $(VENV)/.test  ## what a message costs as connections, size, recipients and the queue grow
	$(BIN)/python -m tests.bench.install
	$(BIN)/python -m tests.bench.flat --out "$(or $(OUT),docs/bench)" $(ARGS)

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .[bench]
	touch $@

bench-calls: $(VENV)/.test  ## the system calls of a message, ours and the peers' that are there, by strace
	$(BIN)/python -m tests.bench.calls $(ARGS)

bench-profile: $(VENV)/.bench  ## where our server's time goes under a workload (WORKLOADS="W1 W5" ARGS=--perf)
	$(BIN)/python -m tests.bench.profile $(or $(WORKLOADS),W1) $(ARGS)

fuzz: $(VENV)/.test  ## a million cases of the protocol core (CASES=1000000 SEED=1); guided by coverage where atheris installs
	-@$(BIN)/python -c "import atheris" 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --editable .[fuzz]
	$(BIN)/python -m tests.wire.fuzz_core --cases $(or $(CASES),1000000) $(if $(SEED),--seed $(SEED))

crash: $(VENV)/.test  ## kill the server under load and hold it to its word (ROUNDS=100 SEED=1 PROCESSES=2)
	$(BIN)/python -m tests.crash.kill --rounds $(or $(ROUNDS),100) --processes $(or $(PROCESSES),1) $(if $(SEED),--seed $(SEED))

diagram: $(VENV)/.core  ## docs/dialogue.svg from the table of rules
	$(BIN)/python docs/dialogue.py > docs/dialogue.svg

$(VENV)/.docs: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .[docs]
	touch $@

docs: $(VENV)/.docs  ## the pages under docs/ as HTML in build/docs; warnings are errors
	$(BIN)/python -m smtpd_core reference > docs/reference.md
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
