# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""A model to train: a checkpoint to go on from, or new speech parts around an LLM."""

from dataclasses import dataclass, field

import torch
from transformers import AutoTokenizer, set_seed

from ..configuration import FreezeOmniAdapterConfig, FreezeOmniSpeechEncoderConfig
from ..conversion.whisper import load_whisper_encoder, whisper_encoder_config, whisper_encoder_state_dict
from ..embedded import SYSTEM_PROMPT, embedded_config
from ..generation.configuration import FreezeOmniGenerationConfig
from ..generation.segmentation import segment_token_ids
from ..language_model import language_model_fingerprint, load_language_model, resolve_language_model
from ..models import FreezeOmniForConditionalGeneration
from ..models.freeze_omni import without_language_model
from ..processing import FreezeOmniProcessor
from .stages import in_cache


@dataclass
class ModelArguments:
    """Which model a stage trains."""

    model: str | None = field(default=None, metadata={"help": "Checkpoint to go on from: a folder or a Hub id."})
    llm: str | None = field(default=None, metadata={"help": "The frozen LLM of a new model: a folder or a Hub id."})
    llm_dtype: str = field(default="auto", metadata={"help": "Type of the frozen LLM: auto, float32, bfloat16."})
    whisper: str | None = field(
        default=None, metadata={"help": "Whisper model whose encoder a new model starts from (Hub id, folder, .bin)"}
    )
    encoder: dict | None = field(default=None, metadata={"help": "Settings of a new speech encoder."})
    adapter: dict | None = field(default=None, metadata={"help": "Settings of a new adapter."})
    prompt_length: int = field(default=25, metadata={"help": "Prompt embeddings of a new model."})
    trailing_silence: float = field(default=0.0, metadata={"help": "Seconds of silence behind every utterance."})
    hearing_beams: int = field(default=1, metadata={"help": "Hypotheses with which a new model hears by search."})
    voice: bool = field(default=True, metadata={"help": "Whether a new model has a speech decoder and a codec."})
    system_prompt: str | None = field(default=SYSTEM_PROMPT, metadata={"help": "System prompt of a new model."})
    model_seed: int = field(default=0, metadata={"help": "Seed of new weights."})


def load_or_build(arguments: ModelArguments) -> tuple[FreezeOmniForConditionalGeneration, FreezeOmniProcessor]:
    """The model with its LLM attached, and its processor.

    Raises:
        ValueError: neither a checkpoint nor an LLM is named.
    """
    # Also for a checkpoint: a stage may put a new head on it.
    set_seed(arguments.model_seed)
    dtype = arguments.llm_dtype
    llm_kwargs = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if arguments.model is not None:
        model = FreezeOmniForConditionalGeneration.from_pretrained(
            in_cache(arguments.model), language_model=arguments.llm, llm_kwargs=llm_kwargs
        )
        return model, FreezeOmniProcessor.from_pretrained(in_cache(arguments.model))
    if arguments.llm is None:
        raise ValueError("Name a checkpoint with --model, or an LLM with --llm to build a new model around it.")
    llm = load_language_model(arguments.llm, **llm_kwargs)
    tokenizer = AutoTokenizer.from_pretrained(resolve_language_model(arguments.llm))
    config = embedded_config(llm.config, arguments.llm)
    config.llm_fingerprint = language_model_fingerprint(llm)
    config.prompt_length = arguments.prompt_length
    if not arguments.voice:
        config.speech_decoder_config = config.codec_config = None
    if arguments.encoder is not None and arguments.whisper is None:
        config.speech_encoder_config = FreezeOmniSpeechEncoderConfig(**arguments.encoder)
    adapter = {"input_size": config.speech_encoder_config.hidden_size, **(arguments.adapter or {})}
    weights = None
    if arguments.whisper is not None:
        whisper, weights = load_whisper_encoder(in_cache(arguments.whisper))
        config.speech_encoder_config = whisper_encoder_config(
            whisper,
            **{
                "left_chunks": 16,
                "dynamic_chunks": True,
                "hidden_dropout": 0.0,
                "activation_dropout": 0.0,
                **(arguments.encoder or {}),
            },
        )
        adapter.update(input_size=whisper.d_model, stack_frames=2)
    config.adapter_config = FreezeOmniAdapterConfig(output_size=config.adapter_config.output_size, **adapter)
    processor = FreezeOmniProcessor.from_model_config(
        config,
        tokenizer,
        default_system_prompt=arguments.system_prompt,
        trailing_silence=arguments.trailing_silence,
    )
    config.audio_token_id = processor.audio_token_id
    with without_language_model():
        model = FreezeOmniForConditionalGeneration(config)
    if weights is not None:
        model.speech_encoder.load_state_dict(
            {
                **whisper_encoder_state_dict(weights),
                "feature_mean": model.speech_encoder.feature_mean,
                "feature_scale": model.speech_encoder.feature_scale,
            }
        )
    model.attach_language_model(llm)
    model.generation_config = FreezeOmniGenerationConfig(
        max_new_tokens=64,
        hearing_beams=arguments.hearing_beams,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=processor.pad_token_id,
        segment_policy="short_first",
        segment_min_tokens=4,
        codec_overlap=10 if model.codec is None else model.codec.context_tokens,
        codec_first_chunk_size=8,
        **segment_token_ids(tokenizer),
    )
    return model, processor


__all__ = ["ModelArguments", "load_or_build"]
