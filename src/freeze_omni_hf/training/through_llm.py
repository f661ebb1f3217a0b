# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What input stages 2 and 3 share: training what stands before the frozen LLM by what it says."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from .augmentation import Augmentation
from .collators import ConversationCollator
from .data import load_rows
from .new_model import ModelArguments, load_or_build
from .stages import (
    FrozenParts,
    StageTrainer,
    encoder_optimizer,
    freeze_lowest_layers,
    in_cache,
    own_the_push,
    run_stage,
    train_only,
)


@dataclass
class HearingArguments:
    """What an input stage reads, and how its parts learn."""

    train: list[dict] = field(default_factory=list, metadata={"help": "Specs of the training rows (load_rows)."})
    test: dict = field(default_factory=dict, metadata={"help": "Names and specs of the evaluation sets."})
    encoder_learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate of the speech encoder."})
    frozen_layers: int = field(default=0, metadata={"help": "Lowest encoder layers that are not trained."})
    augment: dict | None = field(default=None, metadata={"help": "Settings of Augmentation; none leaves audio alone."})
    max_seconds: float = field(default=15.0, metadata={"help": "Longer training rows are left out."})


@dataclass
class ConversationArguments(HearingArguments):
    """What a stage through the LLM trains, beside what it reads."""

    parts: list[str] = field(default_factory=list, metadata={"help": "Parts that are trained."})
    distill: bool = field(
        default=False, metadata={"help": "Also follow the same LLM reading the text, by distillation."}
    )
    lm_loss_weight: float = field(default=1.0, metadata={"help": "Weight of the cross-entropy when distilling."})


def train_through_llm(
    stage: ConversationArguments,
    model_arguments: ModelArguments,
    arguments: TrainingArguments,
    target: str,
    task: str | None,
) -> None:
    """Runs input stage 2 or 3 and saves the model into the output folder.

    Args:
        stage: Data and parts.
        model_arguments: The checkpoint to go on from.
        arguments: Trainer's own settings.
        target: "text" (the transcript) or "answer" (the LLM's own answer to the text).
        task: Task whose embedding stands before the audio; None: the learned prompt.
    """
    push = own_the_push(arguments)
    arguments.output_dir = in_cache(arguments.output_dir)
    model, processor = load_or_build(model_arguments)
    model.config.lm_loss_weight = stage.lm_loss_weight
    train_only(model, stage.parts)
    if "speech_encoder" in stage.parts:
        freeze_lowest_layers(model.speech_encoder, stage.frozen_layers)
    settings = {"target": target, "task": task, "teacher": stage.distill}
    augment = Augmentation.from_dict(stage.augment) if stage.augment else None
    frozen = {name: getattr(model, name) for name in ("speech_encoder", "adapter") if name not in stage.parts}
    trainer = StageTrainer(
        model=model,
        args=arguments,
        train_dataset=load_rows(stage.train),
        eval_dataset={name: load_rows(spec) for name, spec in stage.test.items()} or None,
        data_collator=ConversationCollator(processor, augment, stage.max_seconds, **settings),
        eval_collator=ConversationCollator(processor, None, stage.max_seconds, **settings),
        optimizers=(encoder_optimizer(model, model.speech_encoder, stage.encoder_learning_rate, arguments), None),
        callbacks=[FrozenParts({"the LLM": model.language_model, **frozen})],
    )
    name = f"Input stage {2 if target == 'text' else 3}"
    run_stage(name, trainer, model, processor, [stage, model_arguments], push)


__all__ = ["ConversationArguments", "HearingArguments", "train_through_llm"]
