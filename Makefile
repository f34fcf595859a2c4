# Everything runs in .venv, which `make setup` builds from constraints.txt. DALI=cuda13 takes DALI's CUDA 13 build.
PYTHON ?= python3
VENV ?= .venv
DALI ?= cuda12
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-$(DALI)
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test test-full lint bench clean

setup: $(INSTALLED)

# torch comes first: the kernels in csrc/ are built against its headers
$(INSTALLED): pyproject.toml setup.py constraints.txt $(shell find csrc -type f)
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch 'setuptools>=77' wheel
	$(PIP) --no-build-isolation -e '.[$(DALI),dev]'
	$(BIN)/python -c 'from clever_fast.ops import extension; print("built:", extension.describe())'
	@touch $@

demo: setup
	$(BIN)/clever-fast demo --out demo

test: setup lint
	$(BIN)/python -m pytest -m "not gpu and not full" tests

test-full: setup lint
	$(BIN)/python -m pytest -m "not gpu" tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	$(BIN)/clever-fast bench all --records bench
	$(BIN)/clever-fast bench report --records bench

clean:
	rm -rf $(VENV) demo bench build *.egg-info clever_fast/_C.so
