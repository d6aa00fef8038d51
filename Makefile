# Everything below works on a fresh clone (Debian or Ubuntu, Python 3.11).

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo serve bench test lint clean

demo: $(VENV)/serve.done  ## an avatar talks and listens: out/demo.mp4
	$(BIN)/visavis demo

serve: $(VENV)/serve.done  ## the server, until Ctrl-C
	$(BIN)/visavis serve

bench: $(VENV)/bench.done  ## one session's speed, how many there may be, and a page of both
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.capacity
	$(BIN)/python -m benchmarks.latency --repository model_repository_pico
	$(BIN)/python -m benchmarks.capacity --repository model_repository_pico
	$(BIN)/python -m benchmarks.report

test: lint  ## lint, types and tests
	$(BIN)/python -m pytest

lint: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/serve.done: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[client,serve]'
	touch $@

$(VENV)/bench.done: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[client,serve,bench]'
	touch $@

# torch comes by itself and first: asked for with the rest, a CUDA build may be chosen.
$(VENV)/dev.done: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[client,serve,train,corpus,evaluate,export,bench,dev]'
	touch $@

clean:
	rm -rf $(VENV) out build
