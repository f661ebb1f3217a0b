# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Before input stage 1, for an encoder that started from Whisper: learn to work in 160 ms chunks by following itself.

Run as: python training/input0_chunks.py --config training/recipes/smollm2-135m/input0.yaml
"""

from dataclasses import dataclass, field

from transformers import TrainingArguments
from trl import TrlParser

from freeze_omni_hf.training.chunks import FreezeOmniForChunks
from freeze_omni_hf.training.collators import TranscriptCollator
from freeze_omni_hf.training.data import load_rows
from freeze_omni_hf.training.new_model import ModelArguments, load_or_build
from freeze_omni_hf.training.stages import (
    FrozenParts,
    StageTrainer,
    freeze_lowest_layers,
    in_cache,
    own_the_push,
    run_stage,
    train_only,
)
from freeze_omni_hf.training.through_llm import HearingArguments


@dataclass
class StageArguments(HearingArguments):
    """How often the encoder works under its own chunk size."""

    fixed_share: float = field(default=0.5, metadata={"help": "Share of batches under the configured chunk size."})


def main() -> None:
    stage, model_arguments, arguments = TrlParser(
        (StageArguments, ModelArguments, TrainingArguments)
    ).parse_args_and_config()
    push = own_the_push(arguments)
    arguments.output_dir = in_cache(arguments.output_dir)
    model, processor = load_or_build(model_arguments)
    train_only(model, ["speech_encoder"])
    freeze_lowest_layers(model.speech_encoder, stage.frozen_layers)
    trainer = StageTrainer(
        model=FreezeOmniForChunks(model, stage.fixed_share),
        args=arguments,
        train_dataset=load_rows(stage.train),
        eval_dataset={name: load_rows(spec) for name, spec in stage.test.items()} or None,
        data_collator=TranscriptCollator(processor, max_seconds=stage.max_seconds),
        compute_metrics=lambda prediction: {"similarity": float(prediction.predictions.mean())},
        preprocess_logits_for_metrics=lambda similarity, labels: similarity.reshape(1),
        callbacks=[FrozenParts({"the LLM": model.language_model})],
    )
    run_stage("Before input stage 1: chunks", trainer, model, processor, [stage, model_arguments], push)


if __name__ == "__main__":
    main()
