PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1

.PHONY: demo test lint notebooks gpu gpu-test gpu-bench clean

# Fine-tune MiniLM on film reviews with MESGC; table and plot beside the committed comparison.
demo: $(VENV)/.installed
	$(BIN)/python -m sgc finetune --group-by-length --out runs/demo \
		--beside results/compare-nvidia-h200.jsonl

# A process a core, each with one thread.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Run the notebooks and store what they show.
notebooks: $(VENV)/.installed
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

# On a machine with a GPU that has the packages already, from the plain checkout: the suites on CUDA,
# then the benchmarks and the throughput study with their result files and figures.
gpu: gpu-test gpu-bench

gpu-test:
	$(PYTHON) -m pytest tests -k cuda -p no:cacheprovider -p no:benchmark -n 8

gpu-bench:
	$(PYTHON) -m sgc bench gpu --plot docs/roofline.png
	$(PYTHON) -m studies throughput --fresh --out results/studies

$(VENV)/.installed: pyproject.toml constraints.txt requirements-embedded.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev,studies]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-embedded.txt
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
