# Everything runs in .venv, which `make setup` builds from constraints.txt. DALI=cuda13 takes DALI's CUDA 13 build.
PYTHON ?= python3
VENV ?= .venv
DALI ?= cuda12
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-$(DALI)
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: setup demo segmentation test test-full lint bench clean

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

# video and saliency on generated pictures, with the demo's encoder
segmentation: setup
	test -f demo/run/encoder.safetensors || $(BIN)/clever-fast demo --out demo
	$(BIN)/clever-fast synthesize clips demo/clips
	$(BIN)/clever-fast evaluate video --data demo/clips --run demo/run --size 256
	$(BIN)/clever-fast evaluate saliency --data demo/clips --run demo/run

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
