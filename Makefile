# `make demo` and `make test` need only Python 3.11 or newer with venv. They create .venv if it does not exist.
# On a machine without an NVIDIA GPU, PyTorch's CPU build is several GB smaller:
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=
BIN      := $(VENV)/bin
# Each worker is one process on one core; more threads per process would compete for the cores.
RUN      := OMP_NUM_THREADS=1 $(BIN)
SHELL_FILES := image/*.sh slurm/*.sh slurm/run.sbatch .ci/run

.DEFAULT_GOAL := help
.PHONY: help demo methods-demo evidence own-data-demo test test-slow torture test-cluster cluster-container-test lint links audit bench gpu-check lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

demo: $(VENV)/ready  ## six methods on real images, three seeds, one table; repeat to do only the missing runs
	$(RUN)/python repro/submit.py --table demo --cluster local
	$(RUN)/python repro/aggregate.py --table demo

methods-demo: $(VENV)/ready  ## all methods and combinations, three seeds, one table; takes an hour and a half on two cores
	$(RUN)/python repro/submit.py --table methods_demo --cluster local
	$(RUN)/python repro/aggregate.py --table methods_demo

evidence: $(VENV)/ready  ## the paper's claims at a small size: two and a half hours on two cores; repeat to go on; writes docs/evidence.md
	$(RUN)/python repro/submit.py --table evidence --cluster local
	$(RUN)/python docs/evidence.py

own-data-demo: $(VENV)/ready  ## scikit-learn's digits as folders, CSV and NPZ: to a table, predictions and a model
	$(BIN)/pip install --quiet $(PIP_ARGS) -e '.[example]'
	$(RUN)/python examples/own_data.py --out build/own_data

test: $(VENV)/ready  ## all tests except the slow ones
	$(RUN)/python -m pytest -n auto

test-slow: $(VENV)/ready  ## only the slow tests
	$(RUN)/python -m pytest -m slow

torture: $(VENV)/ready  ## kill, tear, fail and lie at every file call of the commands; under an hour on two cores
	TORTURE=all $(RUN)/python -m pytest -m torture -n auto --durations=0

test-cluster: $(VENV)/ready  ## test the launcher on a real SLURM that this starts (root; slurm/dev_cluster.sh install)
	eval "$$(slurm/dev_cluster.sh fresh)" && OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster --durations=0; \
	  code=$$?; slurm/dev_cluster.sh stop; exit $$code

cluster-container-test: $(VENV)/ready  ## test the launcher with the real image, in Podman and (if installed) Apptainer
	image/cluster_test.sh

lint: $(VENV)/ready  ## check code and format with ruff, types with pyright, scripts with shellcheck (if installed)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python
	@if command -v shellcheck >/dev/null; then set -x; shellcheck -S warning $(SHELL_FILES); \
	  else echo "the shell scripts are not checked: shellcheck is not installed"; fi

links:  ## check the links of all pages with lychee, which must be installed
	@command -v lychee >/dev/null || { echo "error: lychee is not installed; see https://lychee.cli.rs"; exit 2; }
	lychee --no-progress --max-retries 3 $$(git ls-files '*.md')

audit:  ## check requirements.lock for known vulnerabilities with pip-audit
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements.lock

bench: $(VENV)/ready  ## run all benchmarks
	$(RUN)/python benchmarks/fits.py
	$(RUN)/python benchmarks/augment.py
	$(RUN)/python benchmarks/prepare.py
	$(RUN)/python benchmarks/status.py
	$(RUN)/python benchmarks/report.py
	$(RUN)/python benchmarks/runs.py
	$(RUN)/python benchmarks/step.py
	$(RUN)/python benchmarks/needs.py

gpu-check: $(VENV)/ready  ## on a machine with a GPU: its tests, SEVAL and timings in ten minutes; writes gpu-check.md
	$(BIN)/python benchmarks/gpu_check.py

lock: $(VENV)/ready  ## pin the container's packages, keeping valid pins; LOCK_ARGS=--upgrade updates all pins
	$(BIN)/pip install --quiet uv
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	  --generate-hashes --extra report --extra test $(LOCK_ARGS) --output-file requirements.lock pyproject.toml

clean:  ## remove the virtual environment and caches; keeps runs
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info build

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; choose a newer Python: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip' || \
	  { echo "error: this Python cannot create a virtual environment; on Debian: apt install python3-venv"; exit 2; }
	@echo "installing PyTorch and what else seval needs into $(VENV): 6.3 GB with the CUDA build (3.2 GB to download)," \
	  "at most 2.2 GB with the CPU build (see README.md)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $$(test -t 1 || echo --quiet) $(PIP_ARGS) -e '.[dev]'
	touch $@

# The image. More build options, such as a certificate: make image BUILD_ARGS="-v /etc/ssl/ca.crt:/etc/ssl/ca.crt:ro"
# Settings: BASE_IMAGE, DATASETS, LOCK, IMAGE, ENGINE (docker, podman, buildah), APPTAINER, SIF; see image/*.sh.
.PHONY: image image-test sif sif-test lock-cpu
export BASE_IMAGE DATASETS LOCK IMAGE ENGINE APPTAINER SIF
image:  ## build the container image with docker, podman or buildah
	image/build.sh $(BUILD_ARGS)

image-test:  ## test the image as an arbitrary user, with a read-only root and no network
	image/test.sh $(RUN_ARGS)

sif:  ## convert the image to an Apptainer image (SIF)
	image/sif.sh $(SIF_ARGS)

sif-test:  ## test the SIF in the same way; skipped without Apptainer
	image/sif_test.sh

TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
lock-cpu: $(VENV)/ready  ## write requirements-cpu.lock: the same versions with PyTorch's CPU build, for Linux on x86_64
	$(BIN)/pip install --quiet uv
	UV_CUSTOM_COMPILE_COMMAND="make lock-cpu" $(BIN)/uv pip compile --quiet --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --extra-index-url $(TORCH_INDEX) --index-strategy unsafe-best-match \
	  --emit-index-url --generate-hashes --extra report --extra test --constraint requirements.lock \
	  --output-file requirements-cpu.lock pyproject.toml
