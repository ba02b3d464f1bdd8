# `make help` lists the targets: a target's line ends in its description after "##".
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-oldest test-newest test-kill test-slow lint format bench fast-modes results ablations pretrain gpu app test-app docs wheel clean

help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## create .venv with the tested versions (PYTHON=python3.12 picks another interpreter)

# torch comes first and alone, exactly as pinned: the index then decides between CPU and CUDA build.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]" --constraint constraints.txt
	touch $(STAMP)

demo: install  ## fit, match, segment, score and draw on the embedded model (outputs/demo, minutes on 2 cores)
	$(BIN)/python eval.py task=samples experiment=demo
	$(BIN)/python eval.py task=correspondence experiment=demo data.num_pairs=24
	$(BIN)/python eval.py task=segmentation experiment=demo data.num_images=24

test: install  ## run the tests (seconds to a few minutes)
	$(BIN)/python -m pytest

# what leans on the internals of diffusers, transformers and lightning
MODEL_TESTS := tests/backbones tests/attention tests/pretraining tests/test_embedded_model.py \
	$(addprefix tests/correspondence/test_,module.py prompt_fit.py parity.py) \
	$(addprefix tests/segmentation/test_,golden.py reader.py word_labels.py) tests/test_matcher.py tests/test_segmenter.py

test-oldest:  ## run the tests of models and methods on the oldest supported libraries (.venv-oldest)
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet "$(TORCH)"
	.venv-oldest/bin/python -m pip install --quiet --editable ".[dev]" --constraint constraints-oldest.txt
	.venv-oldest/bin/python -m pytest $(MODEL_TESTS)

test-newest:  ## the same on the newest releases, whatever is pinned (.venv-newest)
	test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet "$(TORCH)"
	.venv-newest/bin/python -m pip install --quiet --upgrade --editable ".[dev]"
	.venv-newest/bin/python -m pytest $(MODEL_TESTS)

test-kill: install  ## kill real runs at 30 random moments and compare what they end in (half an hour)
	$(BIN)/python -m benchmarks.kill

test-slow: install  ## run the tests that take minutes each, and the notebooks
	$(BIN)/python -m pytest -m slow

lint: install  ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## measure the speed of the fast modes against the plain process (outputs/bench)
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.overhead

fast-modes: bench  ## measure what the fast modes cost in PCK as well (docs/performance.md, an hour)
	$(BIN)/python -m benchmarks.quality
	cp outputs/bench/fit.json docs/results/bench_fit.json
	cp outputs/fast_modes/fast_modes.json docs/results/fast_modes.json
	$(BIN)/python -m benchmarks.tables

METHODS := packed,prompt_fit_rerank,dift,dift_mls,colour_nn,copy_position,chance

results: install  ## score the test list, with all methods and groupers that need no downloads, for three seeds
	$(BIN)/python eval.py task=correspondence experiment=partworld "baselines=[$(METHODS)]"
	$(BIN)/python eval.py task=segmentation experiment=groupers output_dir=outputs/partworld
	$(BIN)/python eval.py task=correspondence experiment=partworld "baselines=[$(METHODS)]" data=partworld_cross
	$(BIN)/diffcorr report outputs/partworld --data partworld
	mkdir -p docs/results
	cp outputs/partworld/report/protocols.json docs/results/partworld_protocols.json
	cp outputs/partworld/report/protocols.md docs/results/partworld_protocols.md
	cp outputs/partworld/metrics.json docs/results/partworld.json
	cp outputs/partworld/comparisons.json docs/results/partworld_comparisons.json
	$(BIN)/python -m benchmarks.tables

ABLATIONS := layers timestep sigma rounds crops steps lr

ablations: install  ## the papers' ablations in miniature (docs/ablations.md; half an hour of a core)
	for name in $(ABLATIONS); do $(BIN)/python eval.py -m experiment=ablate_$$name || exit 1; done
	$(BIN)/python -m benchmarks.ablations

pretrain: install  ## train the embedded model anew (hours on a CPU)
	$(BIN)/python train.py experiment=pretrain_tiny

gpu: install  ## everything that still waits for a GPU, in one go
	$(BIN)/python train.py experiment=pretrain_gpu
	$(BIN)/python -m benchmarks.run backbone=sd15 backbone.weights=random backbone.device=cuda \
		method=prompt_fit_paper method.fit.steps=10 method.fit.rounds=2 modes=plain,exact,packed
	$(BIN)/python -m benchmarks.growth backbone=sd15 backbone.weights=random backbone.device=cuda \
		method=prompt_fit_paper

app: install  ## open the web page (http://127.0.0.1:7860)
	$(BIN)/python -m pip install --quiet --editable ".[app]" --constraint constraints.txt
	$(BIN)/diffcorr app

test-app: install  ## test the web page in Chromium (apt-get install chromium); screenshots in outputs/app
	$(BIN)/python -m pip install --quiet --editable ".[dev,app]" --constraint constraints.txt
	$(BIN)/python -m pytest -m app tests/app

docs: install  ## build the documentation site, strictly (outputs/site)
	$(BIN)/python -m pip install --quiet --editable ".[docs]" --constraint constraints.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: install  ## build the wheel and try it in a clean environment, away from the repository
	.ci/wheel

clean:  ## remove caches and build products (keeps .venv and outputs)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
