# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The embedded model: small speech parts around SmolLM2-135M-Instruct, the default of the pipeline and of `talk`."""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig
from transformers.utils import logging

from .configuration import (
    FreezeOmniAdapterConfig,
    FreezeOmniCodecConfig,
    FreezeOmniConfig,
    FreezeOmniSpeechDecoderConfig,
    FreezeOmniSpeechEncoderConfig,
)
from .llm_store import DEFAULT_LLM, cache_dir


logger = logging.get_logger(__name__)

EMBEDDED_NAME = "freeze-omni-smollm2-135m"
SYSTEM_PROMPT = "You are a helpful voice assistant. Answer in one short sentence."
UNTRAINED_NOTICE = (
    "The speech parts of this model are untrained: it runs the whole path from sound to sound, but it does not "
    "understand the question, and its voice is noise."
)


def embedded_config(text_config: PreTrainedConfig, llm_name: str = DEFAULT_LLM) -> FreezeOmniConfig:
    """Sizes of the embedded model's speech parts (37 M parameters) around any small LLM."""
    width = text_config.get_text_config(decoder=True).hidden_size
    return FreezeOmniConfig(
        speech_encoder_config=FreezeOmniSpeechEncoderConfig(
            hidden_size=384,
            num_hidden_layers=4,
            num_attention_heads=6,
            intermediate_size=1536,
            chunk_size=4,
            left_chunks=16,
            dynamic_chunks=True,
        ),
        adapter_config=FreezeOmniAdapterConfig(input_size=384, output_size=width, kernel_size=5),
        text_config=text_config,
        speech_decoder_config=FreezeOmniSpeechDecoderConfig(
            llm_hidden_size=width,
            hidden_size=384,
            intermediate_size=1024,
            num_attention_heads=6,
            num_hidden_layers=4,
            num_pre_layers=2,
        ),
        codec_config=FreezeOmniCodecConfig(generator_type="istft", encoder_type="stft", num_global_tokens=0),
        llm_name_or_path=llm_name,
    )


def embedded_folder() -> Path:
    """Where the embedded checkpoint lies: inside the installed package, or in ``checkpoints/`` of a source tree."""
    here = Path(__file__).parent
    inside = here / "checkpoints" / EMBEDDED_NAME
    return inside if inside.is_dir() else here.parents[1] / "checkpoints" / EMBEDDED_NAME


def embedded_checkpoint(quiet: bool = False) -> Path:
    """The embedded checkpoint; until it is trained, one of the same sizes with untrained speech parts.

    The untrained one is made once, from a fixed seed, in the user's cache, and a warning says what it is unless
    ``quiet``.
    """
    folder = embedded_folder()
    if (folder / "model.safetensors").is_file():
        return folder
    folder = cache_dir() / "untrained" / EMBEDDED_NAME
    if not quiet:
        logger.warning(UNTRAINED_NOTICE)
    if not (folder / "model.safetensors").is_file():
        _make_untrained(folder)
    return folder


def is_untrained(folder: str | os.PathLike) -> bool:
    """Whether a checkpoint is the stand-in that `embedded_checkpoint` made."""
    return (Path(folder) / "UNTRAINED").is_file()


def _make_untrained(folder: Path) -> None:
    from .generation.configuration import FreezeOmniGenerationConfig
    from .generation.segmentation import segment_token_ids
    from .language_model import resolve_language_model
    from .models.freeze_omni import FreezeOmniForConditionalGeneration, without_language_model
    from .processing import FreezeOmniProcessor

    llm = resolve_language_model(DEFAULT_LLM)
    config = embedded_config(AutoConfig.from_pretrained(llm))
    tokenizer = AutoTokenizer.from_pretrained(llm)
    processor = FreezeOmniProcessor.from_model_config(config, tokenizer, default_system_prompt=SYSTEM_PROMPT)
    config.audio_token_id = processor.audio_token_id
    with without_language_model(), torch.random.fork_rng():
        torch.manual_seed(0)
        model = FreezeOmniForConditionalGeneration(config)
    model.generation_config = FreezeOmniGenerationConfig(
        max_new_tokens=64,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        segment_policy="short_first",
        segment_min_tokens=4,
        # An untrained decoder never ends: five seconds a piece are enough to show the path.
        speech_max_tokens=200,
        speech_penalty=1.2,
        speech_penalty_window=20,
        codec_overlap=model.codec.context_tokens,
        codec_first_chunk_size=8,
        **segment_token_ids(tokenizer),
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        model.half().save_pretrained(work)
        processor.save_pretrained(work)
        (Path(work) / "UNTRAINED").write_text(UNTRAINED_NOTICE + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        Path(work).rename(folder)
        Path(work).mkdir()  # the context manager removes it


class LazyDefault(dict):
    """The pipeline registry's default: the checkpoint's place is worked out when somebody asks for it."""

    def __init__(self):
        super().__init__(model=None)

    def __getitem__(self, key: str):
        return (str(embedded_checkpoint()), None) if key == "model" else super().__getitem__(key)


__all__ = ["EMBEDDED_NAME", "embedded_checkpoint", "embedded_config", "embedded_folder", "is_untrained"]
