# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What output stages 2 and 3 share: giving a model a voice, and training what of the speech decoder is named."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForAudioTokenization, TrainingArguments

from ..configuration import FreezeOmniSpeechDecoderConfig
from ..models import (
    FreezeOmniCodec,
    FreezeOmniForConditionalGeneration,
    FreezeOmniOtherCodec,
    FreezeOmniSpeechDecoder,
)
from .data import load_rows
from .new_model import ModelArguments, load_or_build
from .speaking import FreezeOmniForSpeaking, SpeakingCollator, token_accuracy
from .stages import FrozenParts, StageTrainer, in_cache, own_the_push, run_stage, train_only


@dataclass
class VoiceArguments(ModelArguments):
    """Which model speaks, and with which voice."""

    codec: str | None = field(default=None, metadata={"help": "Codec of a model without a voice: folder or Hub id."})
    decoder: dict | None = field(default=None, metadata={"help": "Sizes of a new speech decoder."})
    cleaner: str | None = field(
        default="spoken",
        metadata={"help": "How a new voice's texts are cleaned (None: not at all)."},
    )


@dataclass
class SpeakingArguments:
    """What an output stage reads and trains."""

    train: list[dict] = field(default_factory=list, metadata={"help": "Specs of the training rows (load_rows)."})
    test: dict = field(default_factory=dict, metadata={"help": "Names and specs of the evaluation sets."})
    parts: list[str] = field(
        default_factory=list,
        metadata={"help": "Parts of the speech decoder that are trained: by default all, in output 3 the paper's."},
    )
    letter_weight: float = field(default=0.0, metadata={"help": "Weight of the loss on the letters being said."})
    token_noise: float = field(default=0.0, metadata={"help": "Share of speech tokens read that are others."})
    cut: bool = field(
        default=False,
        metadata={"help": "Train on pieces of rows, as answers are spoken (needs a decoder with letters)."},
    )
    lora: dict | None = field(
        default=None,
        metadata={"help": "Settings of peft's LoraConfig: train low-rank changes of the decoder alone, e.g. {r: 16}."},
    )
    max_tokens: int = field(default=600, metadata={"help": "Rows with more speech tokens are left out."})


def give_voice(model: FreezeOmniForConditionalGeneration, processor: Any, arguments: VoiceArguments) -> None:
    """Puts a codec and a new speech decoder on a model; or, on one that speaks, another codec of the same tokens.

    Raises:
        ValueError: the model has no voice and no codec is named, or the codec has other tokens than the speech decoder
            that stays (``decoder`` is not given).
    """
    if model.speech_decoder is None and arguments.codec is None:
        raise ValueError("The model has no voice yet: name its codec with --codec.")
    if arguments.codec is None:
        return
    if model.speech_decoder is not None and arguments.decoder is None:
        change_codec(model, in_cache(arguments.codec))
        return
    codec = AutoModelForAudioTokenization.from_pretrained(in_cache(arguments.codec), dtype=torch.float32)
    if not isinstance(codec, (FreezeOmniCodec, FreezeOmniOtherCodec)):
        codec = FreezeOmniOtherCodec.around(codec)
    codec.requires_grad_(False)
    model.codec, model.config.codec_config = codec, codec.config
    tokens = len(processor.tokenizer)
    settings = {
        "llm_hidden_size": model.config.get_text_config().hidden_size,
        "codebook_size": codec.config.codebook_size,
        "num_tokens": tokens if (arguments.decoder or {}).get("letters") else 0,
        **(arguments.decoder or {}),
    }
    model.config.speech_decoder_config = FreezeOmniSpeechDecoderConfig(**settings)
    torch.manual_seed(arguments.model_seed)
    model.speech_decoder = FreezeOmniSpeechDecoder._from_config(model.config.speech_decoder_config)
    if model.speech_decoder.reader is not None:
        model.speech_decoder.reader.set_tokens(processor.tokenizer.batch_decode([[token] for token in range(tokens)]))
    model.generation_config.codec_overlap = codec.context_tokens
    model.generation_config.codec_across_segments = True
    model.generation_config.segment_text_cleaner = arguments.cleaner
    processor.output_sampling_rate = codec.config.sampling_rate


def change_codec(model: FreezeOmniForConditionalGeneration, folder: str) -> None:
    """Gives a model that speaks a codec with the same tokens and another sound (``generator_only`` of output 1).

    Raises:
        ValueError: its tokens mean something else.
    """
    other = FreezeOmniCodec.from_pretrained(folder, dtype=torch.float32).requires_grad_(False)
    for part in ("encoder", "quantizer"):  # what gives tokens their meaning; in half precision, as checkpoints have it
        known, new = (getattr(codec, part).state_dict() for codec in (model.codec, other))
        if not all(name in known and torch.equal(known[name].half(), new[name].half()) for name in new):
            raise ValueError(
                f"The tokens of {folder} are not those that the speech decoder has learned: train a new one "
                "(decoder), or only the codec's generator (generator_only)."
            )
    model.codec, model.config.codec_config = other, other.config


def train_decoder(
    name: str,
    stage: SpeakingArguments,
    voice: VoiceArguments,
    arguments: TrainingArguments,
    conversation: bool,
) -> None:
    """Runs output stage 2 or 3 and saves the model into the output folder.

    Args:
        name: Of the stage.
        stage: Data and parts.
        voice: The checkpoint to go on from, or what a new model is made of.
        arguments: Trainer's own settings.
        conversation: Read the LLM's hidden states of an answer in its conversation (output 3).

    Raises:
        ValueError: a part that the speech decoder does not have.
    """
    push = own_the_push(arguments)
    arguments.output_dir = in_cache(arguments.output_dir)
    model, processor = load_or_build(voice)
    give_voice(model, processor, voice)
    decoder = model.speech_decoder
    train_only(model, ["speech_decoder"])
    if conversation and not stage.parts:
        stage.parts = [part for part in ("prefix_proj", "prefix_layers", "pre_layers") if hasattr(decoder, part)]
    unknown = [part for part in stage.parts if getattr(decoder, part, None) is None]
    if unknown:
        names = ", ".join(child for child, _ in decoder.named_children())
        raise ValueError(f"The speech decoder has no {', '.join(unknown)}; its parts are {names}.")
    frozen = {"the LLM": model.language_model, "the codec": model.codec}
    adapted = None
    if stage.lora is not None:
        adapted = add_lora(decoder, stage.lora)
    for part, module in decoder.named_children() if adapted is None else ():
        if stage.parts and part not in stage.parts:
            module.requires_grad_(False)
            frozen[f"the decoder's {part}"] = module
    if not conversation and adapted is None:
        for module in (decoder.prefix_layers, getattr(decoder, "prefix_proj", None)):
            if module is not None:
                module.requires_grad_(False)  # nothing comes in by them yet
    cleaner, reader = model.generation_config.segment_text_cleaner, decoder.reader
    if stage.cut and reader is None:
        raise ValueError(
            "Pieces of rows need a speech decoder with letters: set letters of its configuration, or not cut."
        )
    trainer = StageTrainer(
        model=FreezeOmniForSpeaking(model, conversation, stage.letter_weight, stage.token_noise),
        args=arguments,
        train_dataset=load_rows(stage.train),
        eval_dataset={name: load_rows(spec) for name, spec in stage.test.items()} or None,
        data_collator=SpeakingCollator(processor, conversation, cleaner, stage.max_tokens, reader, stage.cut),
        eval_collator=SpeakingCollator(processor, conversation, cleaner, stage.max_tokens, reader),
        compute_metrics=token_accuracy,
        preprocess_logits_for_metrics=lambda outputs, labels: outputs[-1],
        callbacks=[FrozenParts(frozen)],
    )

    def merge() -> None:
        if adapted is not None:
            adapted.save_pretrained(Path(arguments.output_dir) / "lora")
            adapted.merge_and_unload()

    run_stage(name, trainer, model, processor, [stage, voice], push, before_saving=merge)


def add_lora(decoder: FreezeOmniSpeechDecoder, settings: dict[str, Any]) -> Any:
    """Puts low-rank adapters on all projections of the decoder's layers; nothing else of it is trained.

    Returns:
        peft's model around it, whose ``merge_and_unload`` makes the changes part of the decoder.
    """
    from peft import LoraConfig, get_peft_model

    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return get_peft_model(
        decoder, LoraConfig(**{"r": 16, "lora_alpha": 32, "target_modules": projections, **settings})
    )


__all__ = ["SpeakingArguments", "VoiceArguments", "add_lora", "change_codec", "give_voice", "train_decoder"]
