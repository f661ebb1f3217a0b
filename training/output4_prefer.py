# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Output stage 4: readings that a recogniser understands before readings that it does not (DPO).

Run as: accelerate launch training/output4_prefer.py --config training/recipes/smollm2-135m/output4.yaml
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path

from datasets import load_dataset
from trl import DPOConfig, TrlParser

from freeze_omni_hf.training.new_model import ModelArguments, load_or_build
from freeze_omni_hf.training.preference import (
    FreezeOmniSpeechDecoderForCausalLM,
    PreferenceCollator,
    PreferenceTrainer,
)
from freeze_omni_hf.training.report import plot_losses, stage_card
from freeze_omni_hf.training.stages import FrozenParts, in_cache, own_the_push, train_only, upload


@dataclass
class StageArguments:
    """Which pairs the model learns from."""

    pairs: str = field(metadata={"help": "Folder that rank_readings.py wrote."})
    parts: list[str] = field(
        default_factory=list, metadata={"help": "Parts of the speech decoder that are trained (all)."}
    )


def main() -> None:
    stage, start, arguments = TrlParser((StageArguments, ModelArguments, DPOConfig)).parse_args_and_config()
    push = own_the_push(arguments)
    arguments.output_dir = in_cache(arguments.output_dir)
    arguments.remove_unused_columns = False
    model, processor = load_or_build(start)
    decoder = model.speech_decoder
    if decoder is None:
        raise ValueError("The model has no voice yet: output stages 1 to 3 come first.")
    files = sorted(map(str, Path(in_cache(stage.pairs)).glob("pairs-*.parquet")))
    if not files:
        raise ValueError(f"There are no pairs in {in_cache(stage.pairs)}: rank_readings.py makes them.")
    train_only(model, ["speech_decoder"])
    frozen = {"the LLM": model.language_model, "the codec": model.codec}
    for name, module in decoder.named_children():
        if stage.parts and name not in stage.parts:
            module.requires_grad_(False)
            frozen[f"the decoder's {name}"] = module
    reference = FreezeOmniSpeechDecoderForCausalLM(copy.deepcopy(decoder)).requires_grad_(False).eval()
    trainer = PreferenceTrainer(
        model=FreezeOmniSpeechDecoderForCausalLM(decoder),
        ref_model=reference,
        args=arguments,
        data_collator=PreferenceCollator(decoder.config, model.get_input_embeddings()),
        train_dataset=load_dataset("parquet", data_files=files, split="train"),
        processing_class=processor.tokenizer,
        callbacks=[FrozenParts(frozen)],
    )
    trainer.train()
    if not trainer.is_world_process_zero():
        return
    folder = Path(arguments.output_dir)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    history, rows = trainer.state.log_history, f"{len(trainer.train_dataset)} pairs, none skipped."
    plot_losses(history, folder / "loss.png")
    card = stage_card("Output stage 4", model, [stage, start, arguments], history, rows)
    (folder / "README.md").write_text(card, "utf-8")
    if push:
        upload(folder, arguments.hub_model_id or folder.name, arguments.hub_private_repo, arguments.hub_token)


if __name__ == "__main__":
    main()
