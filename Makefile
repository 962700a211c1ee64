# Two commands do everything: `make up` and `make test`.
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# Those that `make bench` plays, at their short size.
LOADS := alone crowd64 sockets storm catchup knee mixed rolling

.PHONY: help setup up down test soak bench screenshot

help:            ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

setup:           ## Python packages into .venv
	@scripts/setup

up: setup        ## start the fleet; prints its address
	@flotilla up

down:            ## stop it, and nothing else
	@flotilla down

test:            ## every check and test
	@scripts/setup dev
	@scripts/test

soak:            ## the doors under wild requests; then everything dies at random under load, for MINUTES (20), from SEED
	@scripts/setup dev
	@FLOTILLA_FUZZ_CASES=200 FLOTILLA_FUZZ_SEED=$(or $(SEED),0) python -m pytest -q tests/serve/test_socket_fuzz.py tests/serve/test_stream_fuzz.py tests/serve/test_http_chains.py tests/cluster/test_fuzz_doors.py
	@python -m benchmarks.soak --minutes $(or $(MINUTES),20) $(if $(SEED),--seed $(SEED))

bench:           ## every benchmark, into benchmarks/out/*.json, and the load tests' short set with its pages
	@scripts/setup dev
	@for name in sizes links messages density durable fairness overload limits reminders rebalance failover simulate retrieval turn ingress models affinity replicas embedding swaps real_swap crowding adapters peers; do python -m benchmarks.$$name --json benchmarks/out/$$name.json || exit 1; done
	@for name in $(LOADS); do python -m benchmarks.load run $$name --short --name $$name-short; [ $$? -le 1 ] || exit 1; python -m benchmarks.reporting $$name-short || true; done

screenshot:      ## the picture of the README, taken by the test of the page
	@scripts/setup dev
	@SCREENSHOTS=docs/images python -m pytest tests/cluster/test_real_model.py -k browser
