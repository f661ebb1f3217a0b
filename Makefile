# make setup   a virtual environment in .venv, and the small LLM in the user's cache
# make demo    asks examples/question.wav and writes outputs/answer.wav
# make test    all tests; PYTEST_ARGS="tests/test_cli.py -k talk" picks some
PYTHON ?= python3
PYTEST_ARGS ?=
STAMP := .venv/.setup-done
LLM_CACHE := $(or $(FREEZE_OMNI_CACHE),$(HOME)/.cache/freeze_omni_hf)
RUFF_PATHS := $(wildcard src tests training benchmarks space scripts examples)

.PHONY: setup demo test style quality space bench clean

setup: $(STAMP)
	@test -f "$(LLM_CACHE)/llm/HuggingFaceTB--SmolLM2-135M-Instruct/model.safetensors" \
		|| .venv/bin/python -m freeze_omni_hf.llm_store \
		|| echo "The small LLM is not in the cache; it will be looked for on the Hub when it is needed." >&2

$(STAMP): pyproject.toml scripts/setup.sh
	PYTHON="$(PYTHON)" scripts/setup.sh .venv
	@touch $@

demo: setup
	@mkdir -p outputs
	.venv/bin/freeze-omni talk examples/question.wav -o outputs/answer.wav

# One torch thread a worker: threads of several workers only get in each other's way.
test: setup
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

style: setup
	.venv/bin/ruff check --fix $(RUFF_PATHS)
	.venv/bin/ruff format $(RUFF_PATHS)

quality: setup
	.venv/bin/ruff check $(RUFF_PATHS)
	.venv/bin/ruff format --check $(RUFF_PATHS)

space: setup
	.venv/bin/python space/app.py

bench: setup
	.venv/bin/python benchmarks/latency.py

clean:
	rm -rf .venv build dist outputs .pytest_cache .ruff_cache
