PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1

.PHONY: demo test lint gpu clean

# Fine-tune MiniLM on film reviews with MESGC; table and plot beside the committed comparison.
demo: $(VENV)/.installed
	$(BIN)/python -m sgc finetune --group-by-length --out runs/demo \
		--beside results/compare-nvidia-h200.jsonl

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# On a machine with a GPU that has the packages already: the suites on CUDA, from the plain checkout.
gpu:
	$(PYTHON) -m pytest tests -k cuda -p no:cacheprovider

$(VENV)/.installed: pyproject.toml constraints.txt requirements-embedded.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-embedded.txt
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
