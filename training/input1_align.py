# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Input stage 1: speech encoder and adapter under CTC against the LLM's own token embeddings.

Run as: accelerate launch training/input1_align.py --config training/recipes/smollm2-135m/input1.yaml
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from safetensors.torch import load_model
from transformers import TrainingArguments
from trl import TrlParser

from freeze_omni_hf.evaluation import error_rates
from freeze_omni_hf.training.alignment import FreezeOmniForAlignment, collapse, transcript_tokens
from freeze_omni_hf.training.augmentation import Augmentation
from freeze_omni_hf.training.collators import TranscriptCollator
from freeze_omni_hf.training.data import load_rows
from freeze_omni_hf.training.new_model import ModelArguments, load_or_build
from freeze_omni_hf.training.stages import (
    FrozenParts,
    StageTrainer,
    UnfreezeAt,
    encoder_optimizer,
    freeze_lowest_layers,
    in_cache,
    own_the_push,
    run_stage,
    train_only,
)
from freeze_omni_hf.training.through_llm import HearingArguments


@dataclass
class StageArguments(HearingArguments):
    """What this stage is trained on beside the sounds."""

    start_from: str | None = field(default=None, metadata={"help": "Run of this stage whose weights to start from."})
    encoder_frozen_steps: int = field(default=0, metadata={"help": "Steps before the speech encoder is trained too."})
    negatives: int | None = field(default=1000, metadata={"help": "Tokens compared with in a batch beside its own."})
    character_weight: float = field(default=0.5, metadata={"help": "Weight of the encoder's loss on characters."})
    whole_share: float = field(default=0.1, metadata={"help": "Share of training batches without chunks."})
    snap_weight: float = field(default=0.0, metadata={"help": "Weight that draws vectors to token embeddings."})
    spec_augment: dict | None = field(default=None, metadata={"help": "Settings of SpecAugment; none leaves it out."})


def main() -> None:
    stage, model_arguments, arguments = TrlParser(
        (StageArguments, ModelArguments, TrainingArguments)
    ).parse_args_and_config()
    push = own_the_push(arguments)
    arguments.output_dir = in_cache(arguments.output_dir)
    model, processor = load_or_build(model_arguments)
    train_only(model, ["speech_encoder", "adapter"])
    freeze_lowest_layers(model.speech_encoder, stage.frozen_layers)
    train = load_rows(stage.train)
    test = {name: load_rows(spec) for name, spec in stage.test.items()}

    texts = [text for rows in (train, *test.values()) for text in rows["text"]]
    tokens = transcript_tokens(processor.tokenizer, texts)
    aligner = FreezeOmniForAlignment(
        model,
        tokens,
        processor.tokenizer.batch_decode([[token] for token in tokens]),
        negatives=stage.negatives,
        character_weight=stage.character_weight,
        whole_share=stage.whole_share,
        snap_weight=stage.snap_weight,
    )
    if stage.start_from is not None:
        load_model(aligner, Path(in_cache(stage.start_from)) / "model.safetensors", strict=False)
    augment = Augmentation.from_dict(stage.augment) if stage.augment else None

    trainer = StageTrainer(
        model=aligner,
        args=arguments,
        train_dataset=train,
        eval_dataset=test or None,
        data_collator=TranscriptCollator(processor, augment, stage.max_seconds, spec_augment=stage.spec_augment),
        eval_collator=TranscriptCollator(processor),
        compute_metrics=partial(transcript_errors, processor.tokenizer),
        preprocess_logits_for_metrics=best_path,
        optimizers=(encoder_optimizer(aligner, model.speech_encoder, stage.encoder_learning_rate, arguments), None),
        callbacks=[
            FrozenParts({"the LLM": model.language_model}),
            UnfreezeAt(model.speech_encoder, stage.encoder_frozen_steps),
        ],
    )
    run_stage(
        "Input stage 1, against the LLM's token embeddings", trainer, model, processor, [stage, model_arguments], push
    )


def best_path(outputs, labels):
    """(B, L) LLM tokens of the best paths: all that the metrics need."""
    return outputs[-1]


def transcript_errors(tokenizer, prediction) -> dict[str, float]:
    """Word and character error rates of the best paths."""
    heard = tokenizer.batch_decode([collapse(path) for path in prediction.predictions])
    said = [[int(token) for token in row if token >= 0] for row in prediction.label_ids]
    rates = error_rates(heard, tokenizer.batch_decode(said))
    return {"wer": rates["wer"], "cer": rates["cer"]}


if __name__ == "__main__":
    main()
