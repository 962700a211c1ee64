# Two commands do everything: `make up` and `make test`.
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup up down test check bench clean

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
