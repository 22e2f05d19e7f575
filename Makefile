# logfan: `make run` shows the main job, `make test` proves it. Both fetch what is missing first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
STAMP := $(VENV)/.installed
OLDEST := $(VENV)/oldest/.installed
CLIENTS := .venv-bench/.installed
BENCH = SECONDS=$(SECONDS) REPORT=$(REPORT) JSON=$(JSON) CHARTS=$(CHARTS) FROM=$(FROM)
FAST := tests/test_architecture.py tests/test_locks.py tests/unit tests/contract tests/guard
# Tests wait as well as compute: so many keep two cores busy.
WORKERS ?= 5
DEBIAN := daemon/logfan/testing/debian.py

# Tests and daemons are compiled once, not by each of the processes that a suite starts.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-long coverage bench bench-quick bench-scale brokers pythons chaos cluster soak sinks lint format publishers docs screenshots site dist clean lock

help: ## Show this list
	@echo "logfan: every message of an exchange to every sink, acknowledged only then"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s", $$1; at = 18; count = split($$2, words, " "); \
		for (n = 1; n <= count; n++) { at += length(words[n]) + 1; \
			if (at > 80) { printf "\n%18s", ""; at = 19 + length(words[n]) } printf " %s", words[n] } print "" }' Makefile

run: $(STAMP) ## Show the main job at work, on a private RabbitMQ; Ctrl-C ends it
	@$(BIN)/logfan demo

# mypy takes one core; the other one compiles the tests meanwhile, once for all workers.
test: $(STAMP) $(OLDEST) ## Lint, types and all tests, on a real RabbitMQ
	@$(BIN)/python -m pytest -q --collect-only >$(VENV)/collected 2>&1 & $(MAKE) -s lint || { wait; exit 1; }; wait
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not long"

test-long: lint $(OLDEST) ## The same, the tests that take long, and more cases of the drawn ones
	@LOGFAN_FUZZ_CASES=20000 LOGFAN_EXAMPLES=500 LOGFAN_MACHINE_EXAMPLES=1000 LOGFAN_PASSWORDS=1000 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

coverage: $(STAMP) $(OLDEST) ## Lines and branches that all tests run, daemons included; at least 95 %
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q -n $(WORKERS) --dist worksteal -m "not long" $(TESTS)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

test-fast: $(STAMP) ## The tests that need no RabbitMQ, but the slow ones
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not long and not slow" $(FAST)

bench: $(STAMP) $(CLIENTS) ## Every consumer in turns, medians, ratios, targets: REPORT= JSON= CHARTS= FROM=
	@PYTHONPATH=tests $(BIN)/python -m bench.run PLAN=whole $(BENCH)

bench-scale: $(STAMP) ## Several instances on one queue, and several queues, in less than four minutes
	@PYTHONPATH=tests $(BIN)/python -m bench.run PLAN=scale $(BENCH)

bench-quick: $(STAMP) $(CLIENTS) ## The main comparisons in less than two minutes
	@PYTHONPATH=tests $(BIN)/python -m bench.run PLAN=quick $(BENCH)

brokers: $(STAMP) ## All that needs a broker on RabbitMQ 3.10, 4.0 and 4.3, and a table: VERSIONS="4.0 4.3"
	@PYTHONPATH=tests WORKERS=$(WORKERS) $(BIN)/python -m brokers.run $(if $(VERSIONS),--versions "$(VERSIONS)") \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(REPORT),--report $(REPORT)) $(TESTS)

pythons: $(STAMP) ## The fast tests and the main job on Python 3.11 to 3.14, and a table: VERSIONS="3.14"
	@PYTHONPATH=tests WORKERS=$(WORKERS) $(BIN)/python -m pythons.run \
		$(if $(VERSIONS),--versions "$(VERSIONS)") $(if $(REPORT),--report $(REPORT)) $(TESTS)

cluster: $(STAMP) ## A cluster's nodes killed in turns under load: ROUNDS=5 PRIVATE_RABBITMQ=4.3
	@ROUNDS=$(or $(ROUNDS),5) $(BIN)/python -m pytest -q -s tests/integration/test_cluster.py

chaos: $(STAMP) ## Faults under load, then the verdict: KILLS=200 SECONDS=1800 MESSAGES=1000000 SEED=
	@PYTHONPATH=tests $(BIN)/python -m chaos.run KILLS=$(KILLS) SECONDS=$(SECONDS) \
		MESSAGES=$(MESSAGES) SEED=$(SEED) REPORT=$(REPORT)

soak: $(STAMP) ## A constant load, watched for growth: SECONDS=1800 RATE=1000
	@PYTHONPATH=tests $(BIN)/python -m chaos.soak SECONDS=$(SECONDS) RATE=$(RATE) REPORT=$(REPORT)

sinks: $(STAMP) ## Six sinks at once, servers and daemon crashed in turns, then read back: RECORDS=300000 ROUNDS=2
	@PYTHONPATH=tests $(BIN)/python -m sinks.run RECORDS=$(RECORDS) ROUNDS=$(ROUNDS) REPORT=$(REPORT)

lint: $(STAMP) ## ruff and mypy (strict) over everything
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy --no-error-summary

format: $(STAMP) ## Put the code into its form
	@$(BIN)/ruff check -q --fix .
	@$(BIN)/ruff format -q .

publishers: $(STAMP) ## Record anew what real libraries publish, in Python, Node, Go, Java, Rust: ONLY="node go"
	@PYTHONPATH=tests $(BIN)/python -m publishers.run $(ONLY)

docs: $(STAMP) ## Write anew what pages have from the code
	@PYTHONPATH=tests $(BIN)/python -m support.sink_pages
	@PYTHONPATH=tests $(BIN)/python -m publishers.page
	@PYTHONPATH=tests $(BIN)/python -m support.doctor_page
	@PYTHONPATH=tests:systemd $(BIN)/python -m support.reference_pages
	@PYTHONPATH=tests $(BIN)/python -m support.dashboard

screenshots: $(STAMP) ## Take the pictures of the status page anew, in systemd/
	@PYTHONPATH=tests $(BIN)/python -m support.screenshots

site: $(STAMP) ## Build the docs site into site/; a warning ends it
	@$(BIN)/python -m sphinx -q -W --keep-going -c daemon/docs -d $(VENV)/doctrees . site
	@echo "site/index.html"

dist: $(STAMP) ## Build a release into dist/: wheel, deb, image
	@PYTHONPATH=systemd $(BIN)/python -m packages.dist dist

clean: ## Remove what make made in this folder (the cached RabbitMQ stays)
	rm -rf $(VENV) .venv-bench .venv-pythons .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis dist site logs logfan-demo
	find daemon plugins tests -name __pycache__ -type d -prune -exec rm -rf {} +

lock: $(STAMP) ## Choose all dependencies anew, with their hashes
	@rm -rf $(VENV)/lock
	@$(PIP) install --target $(VENV)/lock uv
	@head -1 .requirements.lock > $(VENV)/lock/first
	@$(VENV)/lock/bin/uv pip compile --quiet --universal --upgrade --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate \
		--no-strip-extras --system-certs --group dev pyproject.toml -o $(VENV)/lock/rest
	@cat $(VENV)/lock/first $(VENV)/lock/rest > .requirements.lock
	@head -1 .requirements-bench.lock > $(VENV)/lock/first
	@$(VENV)/lock/bin/uv pip compile --quiet --universal --upgrade --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --no-emit-find-links --no-annotate \
		--no-strip-extras --system-certs tests/bench/requirements.in -o $(VENV)/lock/rest
	@cat $(VENV)/lock/first $(VENV)/lock/rest > .requirements-bench.lock

# The other clients, which only the bench needs: never in the environment that is tested.
$(CLIENTS): .requirements-bench.lock | $(STAMP)
	@echo "  preparing .venv-bench, once" >&2
	@$(PYTHON) -m venv --clear --without-pip .venv-bench
	@$(PIP) --python .venv-bench/bin/python install --require-hashes -r .requirements-bench.lock
	@touch $@

# Where Python comes without ensurepip (Debian without python3-venv), pip is taken from Debian's
# package of its wheel, unpacked into a cache.
$(STAMP): pyproject.toml .requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "logfan needs Python 3.11 or newer; call make with PYTHON=python3.x"; exit 1; }
	@echo "  preparing $(VENV), once" >&2
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv --clear $(VENV); else \
		$(PYTHON) -m venv --clear --without-pip $(VENV) \
		&& folder=$$($(PYTHON) $(DEBIAN) --no-closure python3-pip-whl) \
		&& wheel=$$(echo $$folder/usr/share/python-wheels/pip-*.whl) \
		&& $(BIN)/python $$wheel/pip install -q --no-index $$wheel; fi
	@$(PIP) install --require-hashes -r .requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# Beside the locked pika, for the tests that are run against both.
$(OLDEST): .requirements-oldest.lock $(STAMP)
	@rm -rf $(@D)
	@$(PIP) install --require-hashes --no-deps --target $(@D) -r $<
	@touch $@
