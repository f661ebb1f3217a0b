# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Input stage 2: encoder and adapter through the frozen LLM, which is to say what it hears or to answer as if it read.

``--target text`` predicts the transcript behind the embedding of a task, as in the paper; ``--target answer`` predicts
the LLM's own answer behind the prompt embeddings, with ``--distill`` by its own next-token distributions. The parts to
train are an option, so input stage 3 (``parts: [prompt_embeddings]``) is the same script with another recipe.

Run as: accelerate launch training/input2_transcribe.py --config training/recipes/smollm2-135m/input2.yaml
"""

from dataclasses import dataclass, field

from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint
from trl import TrlParser

from freeze_omni_hf.training.augmentation import Augmentation
from freeze_omni_hf.training.collators import ConversationCollator
from freeze_omni_hf.training.data import load_rows
from freeze_omni_hf.training.new_model import ModelArguments, load_or_build
from freeze_omni_hf.training.stages import FrozenParts, encoder_optimizer, in_cache, save_stage, train_only


@dataclass
class StageArguments:
    """What this stage reads, predicts and trains."""

    train: list[dict] = field(default_factory=list, metadata={"help": "Specs of the training rows (load_rows)."})
    test: dict = field(default_factory=dict, metadata={"help": "Names and specs of the evaluation sets."})
    parts: list[str] = field(
        default_factory=lambda: ["speech_encoder", "adapter", "task_embeddings"],
        metadata={"help": "Parts that are trained."},
    )
    target: str = field(default="text", metadata={"help": "Column to predict: text (transcript) or answer."})
    distill: bool = field(default=False, metadata={"help": "Also follow the LLM reading the text."})
    encoder_learning_rate: float = field(default=2e-5, metadata={"help": "Learning rate of the speech encoder."})
    augment: dict | None = field(default=None, metadata={"help": "Settings of Augmentation; none leaves audio alone."})
    max_seconds: float = field(default=15.0, metadata={"help": "Longer training rows are left out."})


def main() -> None:
    stage, model_arguments, arguments = TrlParser(
        (StageArguments, ModelArguments, TrainingArguments)
    ).parse_args_and_config()
    arguments.output_dir = in_cache(arguments.output_dir)
    model, processor = load_or_build(model_arguments)
    train_only(model, stage.parts)
    train = load_rows(stage.train)
    test = {name: load_rows(spec) for name, spec in stage.test.items()}
    settings = {
        "target": stage.target,
        "task": "transcribe" if stage.target == "text" else None,
        "teacher": stage.distill,
    }
    augment = Augmentation(**stage.augment) if stage.augment else None

    frozen = {name: getattr(model, name) for name in ("speech_encoder", "adapter") if name not in stage.parts}
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=test or None,
        data_collator=ConversationCollator(processor, augment, stage.max_seconds, **settings),
        optimizers=(encoder_optimizer(model, model.speech_encoder, stage.encoder_learning_rate, arguments), None),
        callbacks=[FrozenParts({"the LLM": model.language_model, **frozen})],
    )
    resume = arguments.resume_from_checkpoint or get_last_checkpoint(arguments.output_dir)
    trainer.train(resume_from_checkpoint=resume)
    print(trainer.data_collator.report)
    save_stage(model, processor, arguments.output_dir)
    if test:
        trainer.save_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    main()
