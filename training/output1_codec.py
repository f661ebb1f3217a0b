# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Output stage 1: the codec, from speech alone (and from what is said, where texts are there).

Run as: accelerate launch training/output1_codec.py --config training/recipes/smollm2-135m/output1.yaml
"""

from dataclasses import dataclass, field

import torch
from transformers import TrainingArguments, set_seed
from trl import TrlParser

from freeze_omni_hf.configuration import FreezeOmniCodecConfig
from freeze_omni_hf.models import FreezeOmniCodec
from freeze_omni_hf.training.augmentation import Augmentation
from freeze_omni_hf.training.codec import (
    CodecLosses,
    FreezeOmniForCodec,
    codebook_figures,
    load_phonetic_head,
    save_phonetic_head,
)
from freeze_omni_hf.training.collators import CodecCollator
from freeze_omni_hf.training.data import load_rows
from freeze_omni_hf.training.stages import FrozenParts, StageTrainer, in_cache, own_the_push, run_stage


@dataclass
class StageArguments:
    """Which codec is trained on what."""

    codec: str | None = field(default=None, metadata={"help": "Codec to go on from: a folder or a Hub id."})
    codec_config: dict | None = field(default=None, metadata={"help": "Sizes of a new codec."})
    generator_only: bool = field(
        default=False, metadata={"help": "Leave the tokens of `codec` as they are and train what makes sound of them."}
    )
    losses: dict | None = field(default=None, metadata={"help": "Settings of CodecLosses."})
    train: list[dict] = field(default_factory=list, metadata={"help": "Specs of the training rows (load_rows)."})
    test: dict = field(default_factory=dict, metadata={"help": "Names and specs of the evaluation sets."})
    augment: dict | None = field(default=None, metadata={"help": "Settings of Augmentation; none leaves audio alone."})
    max_seconds: float = field(default=10.0, metadata={"help": "Longer training rows are left out."})
    crop_seconds: float | None = field(default=None, metadata={"help": "Longer rows give a piece, without letters."})
    model_seed: int = field(default=0, metadata={"help": "Seed of new weights."})


def main() -> None:
    stage, arguments = TrlParser((StageArguments, TrainingArguments)).parse_args_and_config()
    push = own_the_push(arguments)
    arguments.output_dir = in_cache(arguments.output_dir)
    set_seed(stage.model_seed)
    if stage.codec is not None:
        codec = FreezeOmniCodec.from_pretrained(in_cache(stage.codec), dtype=torch.float32)
    else:
        codec = FreezeOmniCodec(FreezeOmniCodecConfig(**(stage.codec_config or {})))
    frozen = {}
    if stage.generator_only:
        if stage.codec is None:
            raise ValueError("generator_only needs a codec whose tokens stay as they are: name it with --codec.")
        frozen = {"the codec's encoder": codec.encoder, "the codebook": codec.quantizer}
    augment = Augmentation.from_dict(stage.augment) if stage.augment else None
    trainer = StageTrainer(
        model=FreezeOmniForCodec(codec, CodecLosses(**(stage.losses or {})), stage.generator_only),
        args=arguments,
        train_dataset=load_rows(stage.train),
        eval_dataset={name: load_rows(spec) for name, spec in stage.test.items()} or None,
        data_collator=CodecCollator(codec.config, augment, stage.max_seconds, stage.crop_seconds),
        eval_collator=CodecCollator(codec.config, max_seconds=stage.max_seconds),
        compute_metrics=lambda found: codebook_figures(torch.as_tensor(found.predictions), codec.config.codebook_size),
        preprocess_logits_for_metrics=lambda outputs, labels: outputs[-1],
        callbacks=[FrozenParts(frozen)],
    )

    def keep_phonetic_head() -> None:
        head = load_phonetic_head(in_cache(stage.codec)) if stage.generator_only else trainer.model.phonetic_head
        save_phonetic_head(head, arguments.output_dir)

    run_stage(
        "Output stage 1: codec",
        trainer,
        codec,
        None,
        [stage],
        push,
        before_saving=keep_phonetic_head,
    )


if __name__ == "__main__":
    main()
