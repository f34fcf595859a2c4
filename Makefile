# Everything runs in .venv, which `make setup` builds from constraints.txt. DALI=cuda13 takes DALI's CUDA 13 build.
PYTHON ?= python3
VENV ?= .venv
DALI ?= cuda12
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-$(DALI)
# a process a core, and torch on one core in each
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: setup demo segmentation test test-full soak lint audit bench gpu clean

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
	$(PYTEST) -m "not gpu and not full and not soak" --seconds .pytest_cache/seconds.json tests

test-full: setup lint
	$(PYTEST) -m "not gpu and not soak" tests

# Kills, signals and memory over thousands of steps; the table of docs/faults.md comes from its records
soak: setup
	$(BIN)/python -m pytest -m "soak or fault" tests --faults benchmarks/results/faults.jsonl
	$(BIN)/python -m clever_fast.benchmarks.checks.faults --docs

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# --strict: a package that the advisory service does not know, or a service out of reach, is a failure
audit: $(VENV)/audit/bin/pip-audit
	@$< --strict --no-deps --disable-pip -r constraints.txt \
	|| { echo "audit: NOT clean: either a vulnerability above, or the advisories of pypi.org could not be asked"; exit 1; }

$(VENV)/audit/bin/pip-audit:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install -q --disable-pip-version-check pip-audit

bench: setup
	$(BIN)/clever-fast bench all --records bench
	$(BIN)/clever-fast bench report --records bench

# On a machine with a GPU, with .venv or with a Python that has torch (make gpu PYTHON=...); at most 20 minutes
gpu:
	$(firstword $(wildcard $(BIN)/python) $(PYTHON)) benchmarks/on_gpu.py --out bench

clean:
	rm -rf $(VENV) demo bench build *.egg-info clever_fast/_C.so
