# `make demo` and `make test` set everything up on a machine with Python 3.10 or newer and nothing else.
PYTHON ?= python3
BIN := .venv/bin
TESTS := -m pytest -m 'not slow and not gpu' -n auto --maxprocesses 4 --dist worksteal

.PHONY: setup demo test oldest lint bench bench-gpu clean

setup: .venv/ready

.venv/ready: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python train.py --config flat2fluent3d --resume none
	$(BIN)/python test.py --run results/flat2fluent3d --metrics kid --extractor effnet-lite0

test: setup
	$(BIN)/python $(TESTS)

# With the oldest versions that setup.cfg allows: make oldest PYTHON=python3.10
oldest:
	$(PYTHON) -m venv .venv-oldest
	sed -nE 's/^ +([a-z-]+(\[[a-z]+\])?)>=([0-9.]+)$$/\1==\3.*/p' setup.cfg | sort -u > .venv-oldest/versions.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-oldest/versions.txt --editable '.[dev]'
	.venv-oldest/bin/python $(TESTS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Every benchmark but styles.py (which needs weights and trained runs), shortly: JSON beside the scripts.
# For figures to rely on, run each longer on a quiet machine (--help).
bench: setup
	$(BIN)/python benchmarks/step.py --size 128 --turns 1 --steps 2 --json benchmarks/step.json
	$(BIN)/python benchmarks/trace.py --size 64 --steps 1
	$(BIN)/python benchmarks/convolution.py --channels 256 --sizes 32 --pictures 128 --turns 5 --json benchmarks/convolution.json
	$(BIN)/python benchmarks/data.py --turns 3 --pairs 64 --steps 2 --width 8 --json benchmarks/data.json
	$(BIN)/python benchmarks/scaling.py --processes 1 2 --updates 10 --speed
	$(BIN)/python benchmarks/translate.py folder --count 8 --repeats 1
	$(BIN)/python benchmarks/evaluate.py --sizes 200 --images 8 --turns 1 --json benchmarks/evaluate.json
	$(BIN)/python benchmarks/algorithms.py --cost --size 128 --iterations 1 --turns 1 --methods cyclegan cut

# What a GPU has to show; a part that fails leaves the others alone. On a machine that can fetch nothing, with the Python
# that has PyTorch there: PYTHONPATH=. make -o setup BIN=/its/bin bench-gpu
bench-gpu: setup
	-$(BIN)/python -m pytest -m gpu -q --continue-on-collection-errors
	-$(BIN)/python benchmarks/step.py --modes auto tf32 bf16 "bf16 channels_last" "CUDA graphs" --batch 1 4 16 32 --turns 1 --json benchmarks/step-gpu.json
	-$(BIN)/python benchmarks/trace.py --mode auto --chrome benchmarks/trace-gpu.json
	-$(BIN)/python benchmarks/trace.py --mode auto --batch 16
	-$(BIN)/python benchmarks/data.py --turns 3 --json benchmarks/data-gpu.json
	-$(BIN)/python benchmarks/scaling.py --speed --width 64 --size 256 --updates 200 --precision bf16
	-$(BIN)/python benchmarks/translate.py folder --count 200
	-$(BIN)/python benchmarks/translate.py tiles --sides 2048 4096
	-$(BIN)/python benchmarks/evaluate.py --sizes --images 1000 --json benchmarks/evaluate-gpu.json
	-$(BIN)/python benchmarks/algorithms.py --cost --iterations 20

clean:
	rm -rf .venv .venv-oldest build dist *.egg-info
