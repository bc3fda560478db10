# Every target creates what it needs from nothing, the virtual environment included.
#
#   make demo          record real LLM training and generation (no GPU needed), analyse, replay, open the dashboard
#   make demo SERVE=0  the same without serving the dashboard
#   make test          the tests; browser tests too, where Chromium is or can be installed
#   make lint          ruff, mypy, import-linter
#   make bench         benchmarks, each printing ratios against a named peer
#   make test-slow     the long sweeps
#
# PYTHON chooses the interpreter. TORCH_PIP_ARGS is added to the installation of torch: where the package index's torch is
# a CUDA build of gigabytes, point it at PyTorch's index of CPU builds (see README.md).

PYTHON ?= python3
SERVE ?= 1
DEMO_DIR ?= out/demo
TORCH_VERSION ?= 2.13.0
TORCH_PIP_ARGS ?=
PYTEST_ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed

.DELETE_ON_ERROR:
.PHONY: demo test test-slow lint format bench chromium screenshots clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH_PIP_ARGS) torch==$(TORCH_VERSION)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[hf,dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/memscope demo --output $(DEMO_DIR) $(if $(filter 0,$(SERVE)),--no-serve,--serve)

chromium:
	.ci/install-chromium

test: $(INSTALLED) chromium
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not gpu" $(PYTEST_ARGS)

test-slow: $(INSTALLED) chromium
	$(BIN)/pytest -m slow $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	@for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python $$benchmark || exit 1; done

screenshots: $(INSTALLED) chromium
	$(BIN)/python docs/screenshots.py

clean:
	rm -rf .venv out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
