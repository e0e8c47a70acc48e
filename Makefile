# make repro   rebuild everything that is out of date, several stages at a time: data, models, reports/index.html
# make env     the environment alone, which the others make too
# make test    the tests (the environment is made first, where there is none)
# make smoke   paper's settings at a tiny size, on stand-ins for what comes from outside: .state/smoke/reports/index.html
# make lint    style and formatting
# make bench   the measurements under bench/, written to reports/bench/
# make lock    resolve requirements.lock anew from pyproject.toml

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p) 2>/dev/null)))
TORCH  := torch==2.13.0
BIN    := .venv/bin
READY  := .venv/.ready

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1

.PHONY: repro env test smoke lint bench lock
.DEFAULT_GOAL := repro

repro: $(READY)
	$(BIN)/python -m freshstart check
	$(BIN)/python -m freshstart repro

env: $(READY)

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

smoke: $(READY)
	$(BIN)/python tests/smoke.py .state/smoke

lint: $(READY)
	ruff check .
	ruff format --check .

bench: $(READY)
	for program in bench/[a-z]*.py; do $(BIN)/python -m bench.$$(basename $$program .py) || exit 1; done

# The CPU and GPU builds of torch bring different packages with them, so torch is pinned here and left out of the lock.
$(READY): requirements.lock Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "freshstart needs Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) -r requirements.lock
	touch $@

lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --quiet --extra dev --universal --python-version 3.11 --no-header \
		$(addprefix --no-emit-package ,torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas \
		nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile \
		nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink \
		nvidia-nvshmem-cu13 nvidia-nvtx) --output-file requirements.lock
