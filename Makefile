# Every target creates what it needs from nothing, the virtual environment included.
#
#   make demo          record real LLM training and generation (no GPU needed), analyse, replay, open the dashboard
#   make demo SERVE=0  the same without serving the dashboard
#   make test          the tests; browser tests too, where Chromium is or can be installed
#   make lint          ruff, mypy, import-linter
#   make types         the types of the dashboard's scripts, checked by TypeScript, which npm puts into build/
#   make core          compile the core again after an edit in core/, and the stubs that mypy reads (seconds)
#   make bench         benchmarks, each printing ratios against a named peer
#   make test-slow     the long sweeps, more and random examples of every property, the core under sanitizers and fuzzed,
#                      and the emulated device under an older PyTorch
#   make test-sanitized the tests of what the core does, with AddressSanitizer and UndefinedBehaviorSanitizer
#   make fuzz          random bytes for the reader of snapshots, for FUZZ_SECONDS; needs clang
#   make test-emulated capture on the emulated CUDA device, under CUDA builds of PyTorch (0.5 GB to download for each)
#   make lock          requirements/lock.txt: every version of constraints.txt with its hashes; and docs/dependencies.md
#   make gpu-evidence  on a machine with a GPU: the gpu tests and a table of real, emulated and predicted peaks, with the
#                      CUDA build of torch that PYTHON has
#
# PYTHON chooses the interpreter. TORCH_PIP_ARGS is added to the installation of torch: where the package index's torch is
# a CUDA build of gigabytes, point it at PyTorch's index of CPU builds (see README.md). EMULATED_TORCH_PIP_ARGS is the same
# for test-emulated, which needs CUDA builds, and none of NVIDIA's libraries.

PYTHON ?= python3
SERVE ?= 1
DEMO_DIR ?= out/demo
TORCH_VERSION ?= 2.13.0
TORCH_PIP_ARGS ?=
PYTEST_ARGS ?=
FUZZ_SECONDS ?= 600
EMULATED_VERSIONS ?= 2.11.0 2.15.0
EMULATED_SLOW_VERSIONS ?= 2.6.0
EMULATED_TORCH_PIP_ARGS ?=
# A version that cannot be had is skipped, unless somebody named it: then it is an error.
on_missing = $(if $(filter file,$(origin $(1))),skip,stop)
EMULATED_ON_MISSING ?= $(call on_missing,EMULATED_VERSIONS)

BIN := .venv/bin
INSTALLED := .venv/.installed
PIP_INSTALL := pip install --quiet --disable-pip-version-check
EMULATED := .venv-emulated

.DELETE_ON_ERROR:
.PRECIOUS: $(EMULATED)/%/.torch
.PHONY: core demo types test test-slow test-sanitized fuzz test-emulated gpu-evidence lint format bench chromium screenshots lock clean

# Python is run from this folder, and so is the core, which is compiled into it once: `make core` makes it anew.
EDITABLE := $(addprefix --config-settings=,editable.mode=inplace wheel.cmake=false wheel.py-api=py3) -e
# The paths are all that is wanted of the editable installation: its finder would go before PYTHONPATH.
only_paths = @sed -i.bak '/^import /d' $(1)/lib/python*/site-packages/_editable_skbc_torch_memscope.pth
CORE := build/core/.built
CORE_SOURCES := CMakeLists.txt $(shell find core -type f)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/$(PIP_INSTALL) -c constraints.txt $(TORCH_PIP_ARGS) torch==$(TORCH_VERSION)
	$(BIN)/$(PIP_INSTALL) -c constraints.txt $(EDITABLE) '.[dash,hf,dev]'
	$(call only_paths,.venv)
	touch $@

$(CORE): $(INSTALLED) $(CORE_SOURCES)
	@.ci/find-compiler $(BIN)/python build/compiler
	@CXX=$$(cat build/compiler) $(BIN)/cmake -S . -B build/core -G Ninja -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
		-DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DMEMSCOPE_IN_TREE=ON -DMEMSCOPE_STRICT=ON > build/configure.log || \
		{ cat build/configure.log; exit 1; }
	$(BIN)/cmake --build build/core
	for subject in $(notdir $(patsubst %/,%,$(dir $(wildcard core/*/bindings.cpp)))); do \
		$(BIN)/python -m nanobind.stubgen -q -m memscope._core.$$subject -i . -o memscope/_core/$$subject.pyi || exit 1; done
	touch $@

core: $(CORE)

demo: $(CORE)
	$(BIN)/memscope demo --output $(DEMO_DIR) $(if $(filter 0,$(SERVE)),--no-serve,--serve)

chromium:
	.ci/install-chromium

test: $(CORE) chromium
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not gpu and not emulated" $(PYTEST_ARGS)

test-slow: $(CORE) chromium
	$(BIN)/pytest -m slow $(PYTEST_ARGS)
	$(BIN)/pytest -n 2 --dist loadfile --hypothesis-profile long -m "hypothesis and not slow" $(PYTEST_ARGS)
	$(MAKE) test-sanitized fuzz
	$(MAKE) test-emulated EMULATED_VERSIONS="$(EMULATED_SLOW_VERSIONS)" \
		EMULATED_ON_MISSING=$(call on_missing,EMULATED_SLOW_VERSIONS)

test-sanitized: $(CORE)
	.ci/test-sanitized $(BIN)/python $(PYTEST_ARGS)

fuzz: $(CORE)
	.ci/fuzz $(BIN)/python $(FUZZ_SECONDS)

# The CUDA build of torch without what it requires of NVIDIA's, which would be gigabytes: the emulated device stands in.
# Each version has requirements of its own, which take the place of the constraints that this machine's pip may carry.
$(EMULATED)/%/.torch: requirements/emulated-%.txt
	@$(PYTHON) -m venv --clear $(@D)
	@PIP_CONSTRAINT=$< $(@D)/bin/$(PIP_INSTALL) --no-deps $(EMULATED_TORCH_PIP_ARGS) -r $< 2> $(@D)/pip.log || \
		{ echo "torch $* cannot be had here: $(@D)/pip.log says why"; exit 1; }
	@touch $@

$(EMULATED)/%/.installed: $(EMULATED)/%/.torch $(CORE) pyproject.toml constraints.txt
	@test -f $(@D)/lib/python*/site-packages/torch/lib/libtorch_cuda.so || \
		{ echo "torch $* came as a build without CUDA: point EMULATED_TORCH_PIP_ARGS at an index of CUDA builds"; exit 1; }
	PIP_CONSTRAINT=requirements/emulated-$*.txt $(@D)/bin/$(PIP_INSTALL) --no-deps -c constraints.txt accelerate
	PIP_CONSTRAINT=requirements/emulated-$*.txt $(@D)/bin/$(PIP_INSTALL) --no-warn-conflicts -c constraints.txt \
		$(EDITABLE) . transformers pytest pytest-xdist filelock fsspec jinja2 networkx psutil pyyaml sympy
	$(call only_paths,$(@D))
	touch $@

test-emulated:
	@tested=; for version in $(EMULATED_VERSIONS); do \
		if ! made=$$($(MAKE) --no-print-directory -s $(EMULATED)/$$version/.torch 2>&1); then \
			made=$$(echo "$$made" | head -n 1); \
			if [ $(EMULATED_ON_MISSING) = skip ]; then echo "== skipped: $$made"; continue; fi; \
			echo "== $$made"; exit 1; fi; \
		$(MAKE) --no-print-directory $(EMULATED)/$$version/.installed || exit 1; \
		echo "== torch $$version on the emulated device"; \
		$(EMULATED)/$$version/bin/pytest -n 2 -m emulated tests/emulated $(PYTEST_ARGS) || exit 1; tested=yes; done; \
	[ "$$tested" ] || echo "== nothing was tested on the emulated device"

# What only a GPU can show: the tests that need one, then the peaks of the examples, real beside emulated and dry run.
gpu-evidence:
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[dash,hf]' pytest accelerate
	$(PYTHON) -m pytest -m gpu tests
	$(PYTHON) docs/gpu_evidence.py --output out/evidence

lint: $(CORE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The scripts run as they are; TypeScript only reads them.
TYPESCRIPT_VERSION := 5.9.3
build/typescript-$(TYPESCRIPT_VERSION):
	npm install --silent --no-audit --no-fund --prefix $@ typescript@$(TYPESCRIPT_VERSION)

types: build/typescript-$(TYPESCRIPT_VERSION)
	$</node_modules/.bin/tsc -p dashboard/tsconfig.json

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(CORE)
	@for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark || exit 1; done

screenshots: $(CORE) chromium
	$(BIN)/python docs/screenshots.py

build/uv/bin/uv:
	$(PYTHON) -m venv build/uv
	build/uv/bin/$(PIP_INSTALL) uv

# Beside the constraints, not in their place: hashes there would refuse editable installations and other builds of torch.
lock: build/uv/bin/uv $(INSTALLED)
	$< pip compile --quiet --generate-hashes --python-version 3.11 --all-extras -c constraints.txt \
		--custom-compile-command 'make lock' pyproject.toml -o requirements/lock.txt
	$(BIN)/python docs/dependencies.py

clean:
	rm -rf .venv .venv-emulated build out memscope/_core/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
