# make setup   a virtual environment in .venv, and the small LLM in the user's cache
# make demo    asks examples/question.wav and writes outputs/answer.wav
# make test    all tests; PYTEST_ARGS="tests/test_cli.py -k talk" picks some
# make train-embedded   data, training and figures of the embedded model; resumes where it was stopped
PYTHON ?= python3
PYTEST_ARGS ?=
STAMP := .venv/.setup-done
LLM_CACHE := $(or $(FREEZE_OMNI_CACHE),$(HOME)/.cache/freeze_omni_hf)
RUFF_PATHS := $(wildcard src tests training benchmarks space scripts examples)

.PHONY: setup demo test style quality space bench clean train-data train-embedded

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

RECIPES := training/recipes/smollm2-135m
RUNS := $(LLM_CACHE)/runs/smollm2-135m
LAUNCH := OMP_NUM_THREADS=1 .venv/bin/torchrun --nproc_per_node 2

train-data: setup
	.venv/bin/python training/prepare_data.py --install-voices
	.venv/bin/python training/prepare_data.py
	.venv/bin/python training/fetch_whisper.py

# A stage that is finished leaves its weights; one that was stopped goes on from its last checkpoint.
$(RUNS)/input1/model.safetensors:
	$(LAUNCH) training/input1_align.py --config $(RECIPES)/input1.yaml

$(RUNS)/input3/model.safetensors: $(RUNS)/input1/model.safetensors
	$(LAUNCH) training/input3_answer.py --config $(RECIPES)/input3.yaml

$(RUNS)/output1/model.safetensors: $(RUNS)/input1/model.safetensors
	$(LAUNCH) training/output1_codec.py --config $(RECIPES)/output1.yaml

$(RUNS)/output1-sound/model.safetensors: $(RUNS)/output1/model.safetensors
	$(LAUNCH) training/output1_codec.py --config $(RECIPES)/output1_sound.yaml

$(RUNS)/output2/model.safetensors: $(RUNS)/input3/model.safetensors $(RUNS)/output1/model.safetensors
	.venv/bin/python training/encode_speech.py --config $(RECIPES)/codes.yaml
	$(LAUNCH) training/output2_speak.py --config $(RECIPES)/output2.yaml

$(RUNS)/output3/model.safetensors: $(RUNS)/output2/model.safetensors
	$(LAUNCH) training/output3_answer_aloud.py --config $(RECIPES)/output3.yaml

train-embedded: train-data
	$(MAKE) $(RUNS)/output3/model.safetensors $(RUNS)/output1-sound/model.safetensors
	.venv/bin/python training/export_embedded.py --run $(RUNS)/output3 --codec $(RUNS)/output1-sound
	.venv/bin/freeze-omni eval checkpoints/freeze-omni-smollm2-135m --output outputs/eval
	.venv/bin/freeze-omni judge checkpoints/freeze-omni-smollm2-135m --output outputs/judge
	.venv/bin/python training/export_embedded.py --run $(RUNS)/output3 --codec $(RUNS)/output1-sound \
		--figures outputs/eval --voice-figures outputs/judge

space: setup
	.venv/bin/python space/app.py

bench: setup
	.venv/bin/python benchmarks/latency.py

clean:
	rm -rf .venv build dist outputs .pytest_cache .ruff_cache
