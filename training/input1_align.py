# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Input stage 1: speech encoder and adapter under CTC against the LLM's own token embeddings.

Run as: accelerate launch training/input1_align.py --config training/recipes/smollm2-135m/input1.yaml
"""

from dataclasses import dataclass, field
from functools import partial

from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint
from trl import TrlParser

from freeze_omni_hf.evaluation import error_rates
from freeze_omni_hf.training.alignment import FreezeOmniForAlignment, collapse, transcript_tokens
from freeze_omni_hf.training.augmentation import Augmentation
from freeze_omni_hf.training.collators import TranscriptCollator
from freeze_omni_hf.training.data import load_rows
from freeze_omni_hf.training.new_model import ModelArguments, load_or_build
from freeze_omni_hf.training.stages import FrozenParts, UnfreezeAt, encoder_optimizer, in_cache, save_stage, train_only


@dataclass
class StageArguments:
    """What this stage reads and how fast it learns."""

    train: list[dict] = field(default_factory=list, metadata={"help": "Specs of the training rows (load_rows)."})
    test: dict = field(default_factory=dict, metadata={"help": "Names and specs of the evaluation sets."})
    encoder_learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate of the speech encoder."})
    encoder_frozen_steps: int = field(default=0, metadata={"help": "Steps before the speech encoder is trained too."})
    negatives: int | None = field(default=4000, metadata={"help": "Tokens compared with in a batch beside its own."})
    character_weight: float = field(default=0.5, metadata={"help": "Weight of the encoder's loss on characters."})
    whole_share: float = field(default=0.1, metadata={"help": "Share of training batches without chunks."})
    snap_weight: float = field(default=0.0, metadata={"help": "Weight that draws vectors to token embeddings."})
    augment: dict | None = field(default=None, metadata={"help": "Settings of Augmentation; none leaves audio alone."})
    spec_augment: dict | None = field(default=None, metadata={"help": "Settings of SpecAugment; none leaves it out."})
    max_seconds: float = field(default=15.0, metadata={"help": "Longer training rows are left out."})


def main() -> None:
    stage, model_arguments, arguments = TrlParser(
        (StageArguments, ModelArguments, TrainingArguments)
    ).parse_args_and_config()
    arguments.output_dir = in_cache(arguments.output_dir)
    model, processor = load_or_build(model_arguments)
    train_only(model, ["speech_encoder", "adapter"])
    train = load_rows(stage.train)
    test = {name: load_rows(spec) for name, spec in stage.test.items()}

    texts = [text for rows in (train, *test.values()) for text in rows["text"]]
    aligner = FreezeOmniForAlignment(
        model,
        transcript_tokens(processor.tokenizer, texts),
        negatives=stage.negatives,
        character_weight=stage.character_weight,
        whole_share=stage.whole_share,
        snap_weight=stage.snap_weight,
    )
    augment = Augmentation(**stage.augment) if stage.augment else None

    trainer = AlignmentTrainer(
        model=aligner,
        args=arguments,
        train_dataset=train,
        eval_dataset=test or None,
        data_collator=TranscriptCollator(processor, augment, stage.max_seconds, spec_augment=stage.spec_augment),
        compute_metrics=partial(transcript_errors, processor.tokenizer),
        preprocess_logits_for_metrics=best_path,
        optimizers=(encoder_optimizer(aligner, model.speech_encoder, stage.encoder_learning_rate, arguments), None),
        callbacks=[
            FrozenParts({"the LLM": model.language_model}),
            UnfreezeAt(model.speech_encoder, stage.encoder_frozen_steps),
        ],
    )
    trainer.plain_collator = TranscriptCollator(processor)
    resume = arguments.resume_from_checkpoint or get_last_checkpoint(arguments.output_dir)
    trainer.train(resume_from_checkpoint=resume)
    print(trainer.data_collator.report)
    save_stage(model, processor, arguments.output_dir)
    if test:
        trainer.save_metrics("eval", trainer.evaluate())


class AlignmentTrainer(Trainer):
    """Augments training rows only."""

    plain_collator: TranscriptCollator | None = None

    def get_eval_dataloader(self, eval_dataset=None):
        collator, self.data_collator = self.data_collator, self.plain_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collator


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
