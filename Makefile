# make demo   shows what this project does, on bundled sounds
# make test   runs the tests
# Both install what they need into .venv. `make help` lists the other targets.

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo_output
# The note of the documentation's picture.
NOTE := flute_acoustic_073-060-100
# Two processes, each with whole test files: a file's fixtures are made once.
PARALLEL := -n 2 --dist loadfile

.PHONY: help demo test test-slow test-newest test-newest-numbers doctest \
    fuzz lint format benchmark docs picture dist clean

help:
	@echo "demo         computes embeddings and a reconstruction of bundled notes (3 minutes)"
	@echo "test         runs the tests"
	@echo "test-slow    runs the tests that take minutes or a GB of disk"
	@echo "test-newest  runs the tests with TensorFlow 2.21 and without tensorflow-io"
	@echo "test-newest-numbers  runs only the numerical and audio tests of these"
	@echo "doctest      runs the examples in docstrings (part of \`make test\`)"
	@echo "fuzz         reads 10,000 damaged files of all kinds"
	@echo "lint         checks format, style, spelling and types, and changes nothing"
	@echo "format       applies the formatter and the linter's fixes"
	@echo "benchmark    times generation against one session.run per sample"
	@echo "docs         builds the documentation site: open site/index.html"
	@echo "picture      makes the documentation's picture and sounds again"
	@echo "dist         builds dist/: a wheel and an sdist, with the bundled checkpoint"
	@echo "clean        removes the environments and the output of the demo"

demo: .venv/installed
	$(BIN)/python bin/nsynth_save_embeddings --source_path=checkpoints/notes \
	    --checkpoint_path=checkpoints/small --save_path=$(DEMO)/embeddings --log=WARN
	$(BIN)/python bin/nsynth_generate --seed=1 --temperature=0.7 --bit_depth=16 \
	    --source_path=checkpoints/notes/$(NOTE).wav \
	    --checkpoint_path=checkpoints/small --save_path=$(DEMO)/generated
	@echo
	@echo "Done."
	@echo "  $(DEMO)/embeddings  one embedding per note of checkpoints/notes: NumPy arrays"
	@echo "                          with a row of 16 numbers per 32 ms of sound"
	@echo "  $(DEMO)/generated   gen_$(NOTE).wav: one of the notes, generated"
	@echo "                          from its embedding alone"
	@echo "The original is checkpoints/notes/$(NOTE).wav."
	@echo "The bundled network is small: four in five notes come back in tune. For NSynth's own"
	@echo "sound, download the released weights (1 GB):"
	@echo "  $(BIN)/nsynth_checkpoint download wavenet --save_path=weights"
	@echo "and run the two commands above with --checkpoint_path=weights."

test: .venv/installed-dev
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow

test-newest: .venv-newest/installed
	.venv-newest/bin/python -m pytest $(PARALLEL) -m "not slow"

test-newest-numbers: .venv-newest/installed
	.venv-newest/bin/python -m pytest $(PARALLEL) -m "not slow" tests/test_audio_*.py \
	    tests/test_wavenet.py tests/test_baseline.py tests/test_spectral.py \
	    tests/test_cqt.py tests/test_weights.py

doctest: .venv/installed-dev
	$(BIN)/python -m pytest tests/test_doctests.py

fuzz: .venv/installed-dev
	$(BIN)/python tests/fuzz.py --cases=10000

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell *.md *.py *.toml *.yml Makefile bin benchmarks checkpoints docs \
	    examples magenta_nsynth tests
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: .venv/installed
	$(BIN)/python benchmarks/generation.py

.venv/installed: setup.py
	@echo "Setting up .venv with TensorFlow. This takes some minutes and prints nothing."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install -qq --editable '.[dev]'
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install -qq --editable '.[docs]'
	touch $@

.venv-newest/installed: setup.py requirements-newest.txt
	@echo "Setting up .venv-newest. This takes some minutes and prints nothing."
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install -qq --upgrade pip
	.venv-newest/bin/python -m pip install -qq -r requirements-newest.txt
	.venv-newest/bin/python -m pip install -qq --no-deps --editable .
	touch $@

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

picture: .venv/installed
	cp checkpoints/notes/$(NOTE).wav docs/assets
	$(BIN)/python bin/nsynth_generate --checkpoint_path=checkpoints/small --seed=1 \
	    --source_path=checkpoints/notes/$(NOTE).wav --temperature=0.7 --bit_depth=16 \
	    --save_path=docs/assets
	$(BIN)/python bin/nsynth_rainbowgram --axis=notes --height=2.6 --dpi=130 \
	    --source_path=checkpoints/notes/$(NOTE).wav --reconstructions_path=docs/assets \
	    --column_labels=original,reconstruction --nonames \
	    --save_path=docs/assets/reconstruction.png

dist: .venv/installed-dev
	rm -rf dist
	$(BIN)/python -m build

clean:
	rm -rf .venv .venv-newest $(DEMO) build dist site magenta_nsynth.egg-info
