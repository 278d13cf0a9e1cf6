# Two commands: `make demo` and `make test`. Each does all the set-up it needs in .venv.
PYTHON ?= python3
VENV ?= .venv
# One torch for everybody. For a CPU-only wheel on Linux: make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
PIP_ARGS ?=
BIN := $(VENV)/bin
OUT ?= out/demo

.PHONY: demo test test-slow lint native clean

demo: $(VENV)/.ready
	$(BIN)/ffavatar demo -o $(OUT)

test: $(VENV)/.ready lint
	$(BIN)/python -m pytest -m "not slow" -n 2

test-slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

native: $(VENV)/.ready
	$(BIN)/python -m ffavatar.render.build

$(VENV)/.ready: pyproject.toml setup.py $(wildcard src/ffavatar/render/native/*)
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build out
