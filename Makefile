# One runner for people and CI. `make demo` and `make test` need nothing but Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
PROFILE ?= embedded
SECONDS ?= 300
WORKERS ?= 6
TARGETS ?= demo test
WORKS ?=
CELLS ?=
ROUNDS ?= 5
GROWTH ?=
# Tests start hundreds of processes; without compiled modules each import costs them double.
unexport PYTHONDONTWRITEBYTECODE
PROJECTS := pyproject.toml $(wildcard backends/*/pyproject.toml)

.PHONY: demo demo-orders others test long unit pythons fresh-machine conformance stories soak soak-clusters lint types mypy pyright imports bench performance brokers docs gallery changelog format help clean

demo: $(READY)  ## compare a task queue with an event stream on the embedded broker
	@$(BIN)/gearshift compare --out compare.html </dev/null

demo-orders: $(READY)  ## run the order service with a crash: PROFILE=embedded|rabbit|kafka|redis
	@$(BIN)/python docs/examples/order_service/demo.py $(PROFILE)

test: $(READY)  ## run every test but the long ones, on brokers that it starts itself
	@PYTHONPATH=compose $(BIN)/python -m native_brokers missing
	@echo "Running the tests: about twenty-five minutes on two cores."
	@$(BIN)/python -m pytest -m "not long" \
		-n $(WORKERS) --dist loadgroup --no-loadscope-reorder

long: $(READY)  ## run the tests of clusters and of what starts brokers, which take minutes each
	@$(BIN)/python -m pytest -m long -n 2 --dist loadgroup --no-loadscope-reorder tests

unit: $(READY)  ## run the tests that need no broker
	@$(BIN)/python -m pytest -m "not broker" \
		tests/unit tests/core tests/embedded tests/testing tests/cli tests/docs backends

pythons:  ## run the tests that need no broker on every supported Python
	@PYTHONPATH=compose:tests $(PYTHON) -m machines.pythons

fresh-machine:  ## run demo and test in an empty Debian 12, with nothing cached and again (root)
	@PYTHONPATH=compose:tests $(PYTHON) -m machines.fresh $(TARGETS)

conformance: $(READY)  ## run the conformance kit everywhere and write docs/conformance
	@mkdir -p docs/conformance
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder \
		tests/conformance/test_*.py tests/conformance/earlier_releases.py \
		tests/conformance/async_brokers.py tests/conformance/chaos_brokers.py \
		tests/conformance/cluster_brokers.py \
		--conformance-report docs/conformance/results.json
	@$(BIN)/python -m gearshift.conformance docs/conformance/results.json >docs/conformance/README.md

stories: $(READY)  ## play the stories of faulty handlers on real brokers and write docs/guides/prove-corpus.md
	@$(BIN)/python -m pytest tests/prove/corpus_on_brokers.py
	@PYTHONPATH=tests $(BIN)/python -m prove.table >docs/guides/prove-corpus.md

soak: $(READY)  ## break real brokers for SECONDS each (300) and count what is lost
	@$(BIN)/python -m pytest tests/system/many_handlers.py
	@PYTHONPATH=compose:tests $(BIN)/python -m soak.soak --seconds $(SECONDS)
	@PYTHONPATH=compose:tests $(BIN)/python -m soak.soak --seconds $(SECONDS) --copies 0 --cancel

soak-clusters: $(READY)  ## break clusters in each way for SECONDS (300) and count what is lost
	@PYTHONPATH=compose:tests $(BIN)/python -m soak.clusters --seconds $(SECONDS) \
		--report docs/conformance/clusters.json $(CELLS)

lint: $(READY)  ## check style
	@$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check .

types: mypy pyright  ## check types

mypy: $(READY)
	@$(BIN)/mypy --no-error-summary -p gearshift -p gearshift_rabbitmq -p gearshift_kafka -p gearshift_redis -p native_brokers
	@$(BIN)/mypy --no-error-summary tests/typing

pyright: $(READY)
	@$(BIN)/pyright --pythonpath $(BIN)/python >.pyright.log || { cat .pyright.log; exit 1; }; rm -f .pyright.log

imports: $(READY)  ## check which package imports which
	@$(BIN)/lint-imports --no-cache >.imports.log || { cat .imports.log; exit 1; }; rm -f .imports.log

bench: $(PEERS)  ## compare with raw clients and peers; GROWTH=1: backlogs, channels, sizes too
	@PYTHONPATH=compose:tests $(BIN)/python -m benchmarks $(WORKS) --rounds $(ROUNDS) \
		$(if $(GROWTH),--growth) --json bench.json

performance: $(PEERS)  ## measure for docs/performance.md and write it: a quiet machine, 25 minutes
	@PYTHONPATH=compose:tests $(BIN)/python -m benchmarks --growth --rounds 3 --scale 0.5 \
		--json docs/performance.json
	@PYTHONPATH=compose:tests $(BIN)/python -m benchmarks.page

others: $(PEERS)  ## run what docs/from shows of other libraries
	@$(BIN)/python -m pytest tests/system/other_libraries.py

brokers: $(READY)  ## start RabbitMQ and Kafka, print their addresses, stop them on Ctrl-C
	@PYTHONPATH=compose $(BIN)/python -m native_brokers run

docs: $(READY)  ## build the site into build/docs; a broken link or reference fails
	@$(BIN)/sphinx-build -q -E -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

gallery: $(READY)  ## make the reports and the trace in docs/gallery from real runs
	@PYTHONPATH=compose $(BIN)/python docs/gallery/make.py
	@PYTHONPATH=compose $(BIN)/python docs/gallery/trace.py

changelog: $(READY)  ## show what the next release says
	@$(BIN)/towncrier build --draft --version next 2>/dev/null

format: $(READY)  ## mend style
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q .

$(READY): constraints.txt $(PROJECTS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt pip
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt \
		--group dev -e '.[cli,compare]' -e backends/rabbitmq -e backends/kafka -e backends/redis
	@touch $@

$(PEERS): tests/benchmarks/requirements.txt $(READY)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -r $<
	@touch $@

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pythons .pytest_cache .mypy_cache .ruff_cache
