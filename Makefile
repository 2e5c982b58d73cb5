# Two commands: `make report` shows what Layerscope does, `make test` checks that it does it.
# Both set up their own environment in .venv first.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up

# The bundled model; until there is one, a real pretrained model beside the repository, where there is one.
BESIDE := ../shared/data/models/english-12l
MODEL  ?= $(if $(wildcard src/layerscope/bundled/model/config.json),bundled,$(if $(wildcard $(BESIDE)),$(BESIDE)))
OUT    ?= runs

.PHONY: report test test-all setup clean

report: $(STAMP)
	$(if $(MODEL),,$(error no model: give one with make report MODEL=FOLDER))
	$(BIN)/layerscope report --model "$(MODEL)" --out "$(OUT)"

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The slow ones too: every experiment against independent computations on many families, sweeps, coverage.
test-all: test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

setup: $(STAMP)

# One install with the tested versions as constraints; the torch pin keeps pip from fetching
# another, much larger build.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
