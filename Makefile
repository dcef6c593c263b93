# make demo: set up and run the main job; make test: set up and test. Both need Python >= 3.10 only.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# make env DETECTRON2=main: its main branch, which takes a compiler and GitHub (docs/installation.md).
# Where it is not named, what is installed stays; the mark of a finished environment says what that is.
MARKS := $(wildcard $(VENV)/.ready*)
DETECTRON2 ?= $(or $(patsubst $(VENV)/.ready-%,%,$(filter $(VENV)/.ready-%,$(MARKS))),v0.6)
READY := $(VENV)/.ready-$(DETECTRON2)
DETECTRON2_MAIN := git+https://github.com/facebookresearch/detectron2.git
INSTALL_DETECTRON2 = $(BIN)/python $(if $(filter main,$(DETECTRON2)), \
  -m pip install -q --no-build-isolation $(DETECTRON2_MAIN), tools/install_detectron2.py)
# The documentation's tools have an environment of their own: nothing else needs them.
DOCS_VENV ?= .venv-docs
DOCS_READY := $(DOCS_VENV)/.ready

.PHONY: env demo test test-slow test-faults check-gpu lint format docs clean

env: $(READY)

$(READY): requirements.lock setup.py topformer_d2/install_detectron2.py $(wildcard topformer_d2/native/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"Python >= 3.10 is needed, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(if $(filter-out $(READY),$(MARKS)),$(BIN)/python -m pip uninstall -q -y detectron2)
	@rm -f $(MARKS)
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.lock
	$(INSTALL_DETECTRON2)
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	@touch $(READY)

demo: env
	$(BIN)/python -m topformer_d2 demo

test: env lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=10 -m "not slow"

test-slow: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup -m slow

# make test-faults MINUTES=30: kill, fill disks and damage files on purpose, for so many minutes.
MINUTES ?= 10
test-faults: env
	$(BIN)/python -m tests.faults --minutes $(MINUTES) --output docs/reliability.md

# In under 8 minutes on one GPU; without one, a short form on the CPU.
REPORT ?= docs/gpu.md
check-gpu: env
	$(BIN)/python -m benchmarks.gpu_check --output $(REPORT)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict tests/typed_program.py

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# build/site/index.html; a broken link or a page that is missing is an error.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build
	@echo "the documentation is build/site/index.html"

$(DOCS_READY): requirements-docs.lock
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --disable-pip-version-check -q -r requirements-docs.lock
	@touch $(DOCS_READY)

clean:
	rm -rf build output *.egg-info .pytest_cache .ruff_cache .mypy_cache
