# make demo    a picture from a sentence, with the bundled model
# make test    the tests, but for those marked slow (JOBS=2)    make test-slow   those
# make lint    style, format, types, and what is not translated yet
# make fuzz    two thousand damaged files and more, other ones each time (DAMAGES a test)
# make rooms   files, lines and imports of every room
# make test-comfyui COMFYUI=/path/to/ComfyUI    the plugin inside a real ComfyUI server
# make test-gpu   on the GPU of this machine (UNCLIP_GPU_TEST_DEVICE names another device; COMFYUI as above)
# make clean   what the other targets made, without the environment

PYTHON  ?= python3
OUTPUT  ?= demo
COMFYUI ?=
JOBS    ?= 2

BIN   := .venv/bin
READY := .venv/.unclip-ready

# A process a core, with one thread each: tests are small, and threads would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

DAMAGES ?= 60

.PHONY: demo test test-slow fuzz lint rooms test-comfyui test-gpu clean

demo: $(READY)
	@echo "== Running workflows/api/text_to_image.json; pictures go to $(OUTPUT)/"
	@$(BIN)/python -m unclip run workflows/api/text_to_image.json --output "$(OUTPUT)"

test: $(READY)
	@$(PYTEST) -m "not slow"

test-slow: $(READY)
	@$(PYTEST) -m slow

fuzz: $(READY)
	@UNCLIP_FUZZ=$(DAMAGES) $(BIN)/python -m pytest -q tests/fuzz

# A clone's folder may have a name that no package can have: mypy reads it through a link that is called `unclip`.
lint: $(READY)
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@mkdir -p .mypy_cache/link && ln -sfn ../.. .mypy_cache/link/unclip
	@cd .mypy_cache/link && MYPYPATH=. ../../$(BIN)/python -m mypy --config-file unclip/pyproject.toml --cache-dir ..
	@$(BIN)/python .ci/locales.py --untranslated

rooms: $(READY)
	@$(BIN)/python tests/rooms.py

test-comfyui: $(READY)
	@$(if $(COMFYUI),COMFYUI_PATH="$(COMFYUI)") $(PYTEST) -m comfyui

# One process, as the card's memory is one; without a card what cannot be tested is said.
test-gpu: $(READY)
	@$(if $(COMFYUI),COMFYUI_PATH="$(COMFYUI)") UNCLIP_GPU_TEST_DEVICE="$${UNCLIP_GPU_TEST_DEVICE:-auto}" \
		$(BIN)/python -m pytest -q -m gpu --durations=10

clean:
	rm -rf build dist demo *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# The stamp is newer than pyproject.toml once the environment holds what pyproject.toml asks for.
$(READY): pyproject.toml
	@test -x $(BIN)/python || { echo "== Making the Python environment .venv"; $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade
	@echo "== Installing unclip and what it needs into .venv (torch is large: the first time takes minutes)"
	@$(BIN)/python -m pip install --progress-bar off -e ".[test,dev]"
	@touch $@
