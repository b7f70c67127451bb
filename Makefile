# Everything a developer runs. The first use of a target builds the virtual environment it needs;
# stamp files that depend on pyproject.toml make every later use fast.

# The first of these that is new enough, unless you write make PYTHON=...
PYTHON ?= $(or $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done),python3)
PYTEST_ARGS ?= -n auto --dist loadgroup

VENV := .venv
OLDEST := .venv-oldest
BIN := $(VENV)/bin

# Test workers and skfisher's own threads share the cores: one BLAS and one OpenMP thread each.
ONE_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# The version of CUDA that the driver runs, 12 or 13; nothing where there is no driver.
CUDA = $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA[A-Za-z ]*Version *: *\([0-9]*\).*/\1/p')

export MPLBACKEND := agg
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help quickstart test test-oldest test-blas test-torch sanitize fuzz-files interrupt-fits lint format docs package \
	gpu benchmark clean
.SECONDARY:

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F '|' '{ printf "%-20s %s\n", $$1, $$2 }'

quickstart: $(VENV)/.plot ## classify images of digits by Fisher vectors, in a fresh environment
	$(BIN)/python examples/plot_quickstart.py

test: $(VENV)/.test ## run all tests (PYTEST_ARGS="-n auto --dist loadgroup" by default)
	$(ONE_THREAD) $(BIN)/python -m pytest $(PYTEST_ARGS)

test-oldest: $(OLDEST)/.test ## run all tests with the oldest supported NumPy, SciPy, scikit-learn, joblib
	$(ONE_THREAD) $(OLDEST)/bin/python -m pytest $(PYTEST_ARGS)

# Kernels of OpenBLAS; it chooses one of them by the CPU.
BLAS_KERNELS ?= Haswell SkylakeX Prescott

test-blas: $(VENV)/.test ## run the numerical tests under each kernel of BLAS that the CPU has
	$(BIN)/python -m tests.blas_kernels $(BLAS_KERNELS) -- $(PYTEST_ARGS)

# Which PyTorch to test with, as pip reads it.
TORCH ?= torch

test-torch: $(VENV)/.test $(VENV)/.torch ## run the tests of what PyTorch has to do with
	$(ONE_THREAD) $(BIN)/python -m pytest tests/torch tests/arrays/test_tensors.py \
		tests/gradient_features/test_dense_head.py $(PYTEST_ARGS)

sanitize: $(VENV)/.test ## run native and CUDA kernels on the CPU under the sanitizers of addresses and undefined behaviour
	$(ONE_THREAD) ASAN_OPTIONS=detect_leaks=0,handle_segv=0 \
	SKFISHER_HOST_FLAGS="-g1 -fsanitize=address,undefined -fno-sanitize-recover=undefined" \
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	$(BIN)/python -m pytest -p no:faulthandler tests/cuda tests/native \
		--ignore tests/cuda/test_compile.py --ignore tests/cuda/test_harness.py \
		--ignore tests/native/test_library.py

fuzz-files: $(VENV)/.test ## load thousands of folders of saved bags that were tampered with
	$(ONE_THREAD) $(BIN)/python -m tests.bags.fuzz_files 5000

interrupt-fits: $(VENV)/.test ## interrupt thousands of fits at random moments, as Ctrl-C does
	$(ONE_THREAD) $(BIN)/python -m tests.interrupt_fits 2000

lint: $(VENV)/.lint ## check style, imports, docstrings, spelling and the types of protocols
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/mypy

format: $(VENV)/.lint ## mend what lint can mend by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.docs ## build the documentation in docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	$(BIN)/python docs/check_site.py docs/_build/html
	$(BIN)/python docs/browse_site.py docs/_build/html

package: $(VENV)/.package ## build source distribution and wheel in dist/, and check what a package index would
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

# Tests first; then those of kernels again, with every read and write watched; then the figures.
gpu: ## on a machine with a GPU: test there, look for faults in kernels, measure
	@test -n '$(CUDA)' || { \
		echo "make gpu needs an NVIDIA GPU and its driver, and nvidia-smi finds none." >&2; exit 1; }
	@$(MAKE) --no-print-directory $(VENV)/.test-cuda$(CUDA)x
	@$(BIN)/python -c 'import sys; from skfisher.arrays.devices import cuda_usable; n, why = cuda_usable(); sys.exit(why or not n)'
	$(BIN)/python -m pytest -m gpu
	sanitizer=$$(command -v compute-sanitizer || find $(VENV)/lib -path '*/bin/compute-sanitizer'); \
	for tool in memcheck racecheck; do "$$sanitizer" --tool $$tool --error-exitcode 1 \
		$(BIN)/python -m pytest -m gpu tests/cuda/test_gpu.py || exit 1; done
	$(BIN)/python benchmarks/gpu.py --save

benchmark: $(VENV)/.bench ## measure speed and memory against other libraries
	$(BIN)/python benchmarks/cpu.py

clean: ## remove environments and everything built
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info skfisher/native/*.so docs/_build docs/auto_examples docs/api/generated
	rm -rf .pytest_cache .ruff_cache .hypothesis .coverage*

# Installed in place, the package finds the native kernels where they were built last.
NATIVE := setup.py $(wildcard skfisher/native/*.[ch])

# $(VENV)/.NAME marks that the package is installed with its extra NAME.
$(VENV)/.%: pyproject.toml $(NATIVE) | $(BIN)/pip
	@echo 'Installing skfisher[$*] into $(VENV)'
	@$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV)/.torch: pyproject.toml $(VENV)/.test
	@echo 'Installing $(TORCH) into $(VENV)'
	@$(BIN)/python -m pip install --quiet '$(TORCH)'
	@touch $@

# The lower bounds of pyproject.toml become exact versions.
$(OLDEST)/.test: pyproject.toml $(NATIVE) | $(OLDEST)/bin/pip
	@echo 'Installing skfisher[test] into $(OLDEST), at the lower bounds'
	@$(OLDEST)/bin/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print("\n".join(project["dependencies"]).replace(">=", "=="))' > $(OLDEST)/constraints.txt
	@$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/constraints.txt --editable '.[test]'
	@touch $@

# Debian's Python may lack ensurepip: then virtualenv, uv or the machine's own pip furnish the
# environment. Nothing is installed outside it.
%/bin/pip:
	@rm -rf $*; python='$(PYTHON)'; \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "skfisher needs Python 3.11 or newer, found '$$python': write make PYTHON=python3.12 ..." >&2; exit 1; }; \
	echo "Creating $* with $$python"; \
	{ $$python -m venv $* \
	|| $$python -m virtualenv --clear $* \
	|| uv venv --clear --seed --python $$python $* \
	|| { $$python -m venv --clear --without-pip $* && $$python -m pip --python $*/bin/python install pip; } \
	} >/dev/null 2>&1 || { rm -rf $*; \
		echo "$$python cannot create virtual environments. Install the package python3-venv" >&2; \
		echo "(sudo apt install python3-venv), virtualenv, or uv, and try again." >&2; exit 1; }
