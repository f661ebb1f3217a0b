# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Input stage 2: encoder, adapter and task embeddings through the frozen LLM, which is to write down what it hears.

Run as: accelerate launch training/input2_transcribe.py --config training/recipes/smollm2-135m/input2.yaml
"""

from transformers import TrainingArguments
from trl import TrlParser

from freeze_omni_hf.training.new_model import ModelArguments
from freeze_omni_hf.training.through_llm import ConversationArguments, train_through_llm


def main() -> None:
    parser = TrlParser((ConversationArguments, ModelArguments, TrainingArguments))
    stage, model, arguments = parser.parse_args_and_config()
    stage.parts = stage.parts or ["speech_encoder", "adapter", "task_embeddings"]
    train_through_llm(stage, model, arguments, target="text", task="transcribe")


if __name__ == "__main__":
    main()
