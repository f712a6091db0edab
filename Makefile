# make demo   what this project does, on bundled sounds
# make test   the tests
# Both set up what they need in .venv. `make help` lists the rest.

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo_output

.PHONY: help demo test test-slow test-newest doctest fuzz lint format benchmark clean

help:
	@echo "demo         embeddings and a reconstruction of bundled notes (3 minutes)"
	@echo "test         the tests"
	@echo "test-slow    the tests that take minutes or a GB of disk"
	@echo "test-newest  the tests on TensorFlow 2.21 without tensorflow-io"
	@echo "doctest      the examples in docstrings, which \`make test\` runs too"
	@echo "fuzz         10,000 damaged files of all kinds"
	@echo "lint         formatter, linter, spelling and types: checks only"
	@echo "format       applies the formatter and the linter's fixes"
	@echo "benchmark    generation against one session.run per sample"
	@echo "clean        removes the environments and the demo's output"

demo: .venv/installed
	$(BIN)/python bin/nsynth_save_embeddings --source_path=checkpoints/notes \
	    --checkpoint_path=checkpoints/small --save_path=$(DEMO)/embeddings --log=WARN
	$(BIN)/python bin/nsynth_generate --seed=1 --bit_depth=16 \
	    --source_path=checkpoints/notes/brass_trumpet_060.wav \
	    --checkpoint_path=checkpoints/small --save_path=$(DEMO)/generated
	@echo
	@echo "Done."
	@echo "  $(DEMO)/embeddings  an embedding per note of checkpoints/notes: NumPy arrays"
	@echo "                          with a row of 16 numbers for each 32 ms of sound"
	@echo "  $(DEMO)/generated   gen_brass_trumpet_060.wav: one of the notes, made"
	@echo "                          again from nothing but its embedding"
	@echo "The bundled weights are small and briefly trained: they follow a note's loudness,"
	@echo "not yet its pitch. For NSynth's own sound take the released weights (1 GB):"
	@echo "  $(BIN)/nsynth_checkpoint download wavenet --save_path=weights"
	@echo "and run the two commands above with --checkpoint_path=weights."

test: .venv/installed-dev
	$(BIN)/python -m pytest -m "not slow"

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow

test-newest: .venv-newest/installed
	.venv-newest/bin/python -m pytest -m "not slow"

doctest: .venv/installed-dev
	$(BIN)/python -m pytest tests/test_doctests.py

fuzz: .venv/installed-dev
	$(BIN)/python tests/fuzz.py --cases=10000

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell *.md *.py *.toml Makefile bin benchmarks checkpoints examples \
	    magenta_nsynth tests
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: .venv/installed
	$(BIN)/python benchmarks/generation.py

.venv/installed: setup.py
	@echo "Setting up .venv with TensorFlow: some minutes, without further words."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install -qq --editable '.[dev]'
	touch $@

.venv-newest/installed: setup.py requirements-newest.txt
	@echo "Setting up .venv-newest: some minutes, without further words."
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install -qq --upgrade pip
	.venv-newest/bin/python -m pip install -qq -r requirements-newest.txt
	.venv-newest/bin/python -m pip install -qq --no-deps --editable .
	touch $@

clean:
	rm -rf .venv .venv-newest $(DEMO) magenta_nsynth.egg-info
