# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Input stage 3: what stands before the frozen LLM learns to make it answer what it hears as it answers what it reads.

The paper trains the prompt embeddings alone (``parts: [prompt_embeddings]``) on the LLM's own answers. With
``distill`` the student also follows the next-token distributions of the same LLM reading the question.

Run as: accelerate launch training/input3_answer.py --config training/recipes/smollm2-135m/input3.yaml
"""

from transformers import TrainingArguments
from trl import TrlParser

from freeze_omni_hf.training.new_model import ModelArguments
from freeze_omni_hf.training.through_llm import ConversationArguments, train_through_llm


def main() -> None:
    parser = TrlParser((ConversationArguments, ModelArguments, TrainingArguments))
    stage, model, arguments = parser.parse_args_and_config()
    stage.parts = stage.parts or ["prompt_embeddings"]
    train_through_llm(stage, model, arguments, target="answer", task=None)


if __name__ == "__main__":
    main()
