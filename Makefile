# Under the Endpoint: what can be made. `make lab` and `make test` are all that a reader needs.
#
# Everything below depends on `setup`, which makes .venv and fills it from constraints.txt. It is safe to
# interrupt and repeat, and takes a second when there is nothing to do.

# Where CPU builds of torch are, for a computer without an NVIDIA GPU whose pip configuration offers none.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
# auto (look for an NVIDIA GPU), cpu or cuda.
ACCELERATOR ?= auto
# Any Python from 3.11 on, used once, to make .venv. The version that the pins were tried with comes first.
ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$python" && break; done)
endif

BIN := $(CURDIR)/.venv/bin
# Tools that are started by name (alembic, by nbgrader) must be this environment's own.
export PATH := $(BIN):$(PATH)
# JupyterLab refuses to start as root unless told so; in a container one often is.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)

.PHONY: help setup lab test lessons labs pocket serve bench bench-all bench-gpu grade soak conda image image-test lint constraints

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST)

setup:  ## make .venv, install the pinned packages, prepare the bundled model
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 or newer was found (python3.11, python3.12, python3.13, python3)."; \
		echo "What to do: sudo apt-get update && sudo apt-get install -y python3 python3-venv   (Debian, Ubuntu)"; \
		echo "            sudo dnf install -y python3.12                                        (Fedora)"; \
		echo "            brew install python@3.12                                              (macOS)"; \
		exit 1; fi
	@$(PYTHON) -m labsupport.machine.setup --torch-cpu-index $(TORCH_CPU_INDEX) --accelerator $(ACCELERATOR)

lab: setup  ## open the course in JupyterLab (LAB_ARGS="--no-browser --port 8888")
	@$(BIN)/jupyter lab $(AS_ROOT) --ServerApp.root_dir="$(CURDIR)" $(LAB_ARGS) lessons/00_start.ipynb

# Strict nbval compares every output of the lessons; tests/course holds what it cannot see.
TEST_ARGS ?= tests lessons --nbval --nbval-current-env --nbval-sanitize-with tests/course/sanitize.cfg \
	--nbval-cell-timeout 90

test: setup  ## run every test (TEST_ARGS="tests/engine -x")
	@status=0; $(BIN)/python -m pytest $(TEST_ARGS) || status=$$?; \
	if [ -n "$$PYTEST_STATUS_FILE" ]; then echo $$status > "$$PYTEST_STATUS_FILE"; fi; exit $$status

lessons: setup  ## generate and execute the lessons (NAMES="01_weights")
	@$(BIN)/python -m labsupport.notebook.build $(NAMES)

labs: setup  ## generate the student notebooks
	@$(BIN)/python -m labsupport.grading.release write labs

serve: setup  ## run the inference server (SERVE_ARGS="--port 8001 --quant q8_0")
	@$(BIN)/labsupport serve $(SERVE_ARGS)

pocket: setup  ## retrain the bundled model (hours; resumes where it stopped)
	@$(BIN)/python -m labsupport.pocket --out .cache/pocket

# Both go on where they stopped. Give them a quiet machine, and peers: benchmarks/README.md says how.
bench: setup  ## speed beside its peers, the short set (BENCH_ARGS="--llama-server PATH --threads 2")
	@$(BIN)/python -m benchmarks --set short --budget-minutes 25 $(BENCH_ARGS)

bench-all: setup  ## speed beside its peers, every load: hours
	@$(BIN)/python -m benchmarks --set all $(BENCH_ARGS)

# On a computer without a network, run the Python module instead: benchmarks/README.md says how.
bench-gpu: setup  ## speed and memory on an NVIDIA GPU, at most 32 minutes (GPU_ARGS="--minutes 5")
	@$(BIN)/python -m benchmarks.gpu memory bf16 quantized llama $(GPU_ARGS)

grade: setup  ## grade what students handed in (GRADE_ARGS="submitted --out graded")
	@$(BIN)/labsupport grade $(GRADE_ARGS)

soak: setup  ## ten minutes of mixed load with faults; slow (SOAK_ARGS="--seconds 60 --seed 1")
	@$(BIN)/python tests/soak/soak.py $(SOAK_ARGS)

# conda runs pip by itself: what `setup` would choose is handed to it in variables that pip and CMake read.
conda:  ## the same environment for conda users
	@set -e; index=$(TORCH_CPU_INDEX); \
	gpu='import sys; from labsupport.machine import nvidia; sys.exit(not nvidia.is_present())'; \
	if [ "$$(uname)" = Darwin ] || $(PYTHON) -c "$$gpu"; then index=; fi; \
	flags="$$($(PYTHON) -c 'from labsupport.machine.setup.llama_wheel import cmake_arguments as a; print(a(cuda=False))')"; \
	CMAKE_ARGS="$$flags $$CMAKE_ARGS" PIP_EXTRA_INDEX_URL="$$index $$PIP_EXTRA_INDEX_URL" \
		conda env create -f environment.yml

image:  ## build the container image (IMAGE_ARGS="--build-arg ACCELERATOR=cuda")
	@docker build -t under-the-endpoint $(IMAGE_ARGS) .

image-test: setup  ## build the image without a Docker engine, run it, and look at it (buildah, root; slow)
	@$(BIN)/python -m pytest -s tests/setup/image_check.py

lint: setup  ## format and lint checks, types, and who imports whom
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

constraints:  ## for maintainers: pin what is installed in .venv now
	@$(BIN)/python -m labsupport.machine.setup.freeze
