# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The embedded model: small speech parts around SmolLM2-135M-Instruct, the default of the pipeline and of `talk`."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig
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
    "The voice of this model is untrained: it hears the question and answers it in text, but the sound of its answer "
    "is noise."
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
    """The embedded checkpoint; while it has no trained voice, a copy of it with an untrained one.

    The copy is made once, from a fixed seed, in the user's cache, and a warning says what it is unless ``quiet``.

    Raises:
        OSError: the checkpoint is not there.
    """
    folder = embedded_folder()
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise OSError(f"The embedded checkpoint is not in {folder}; install the package again, or name a model.")
    if FreezeOmniConfig.from_pretrained(folder).has_voice:
        return folder
    if not quiet:
        logger.warning(UNTRAINED_NOTICE)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    copy = cache_dir() / "untrained" / f"{EMBEDDED_NAME}-{digest}"
    if not (copy / "model.safetensors").is_file():
        _add_untrained_voice(folder, copy)
    return copy


def is_untrained(folder: str | os.PathLike) -> bool:
    """Whether a checkpoint's voice is the stand-in that `embedded_checkpoint` made."""
    return (Path(folder) / "UNTRAINED").is_file()


def _add_untrained_voice(source: Path, target: Path) -> None:
    from .generation.configuration import FreezeOmniGenerationConfig
    from .models.freeze_omni import FreezeOmniForConditionalGeneration, without_language_model
    from .processing import FreezeOmniProcessor

    config = FreezeOmniConfig.from_pretrained(source)
    sizes = embedded_config(config.text_config)
    config.speech_decoder_config, config.codec_config = sizes.speech_decoder_config, sizes.codec_config
    processor = FreezeOmniProcessor.from_pretrained(source)
    with without_language_model(), torch.random.fork_rng():
        torch.manual_seed(0)
        model = FreezeOmniForConditionalGeneration(config)
    model.load_state_dict(load_file(source / "model.safetensors"), strict=False)
    model.generation_config = FreezeOmniGenerationConfig.from_pretrained(source)
    # An untrained decoder never ends: five seconds a piece are enough to show the path.
    model.generation_config.update(
        speech_max_tokens=200,
        speech_penalty=1.2,
        speech_penalty_window=20,
        codec_overlap=model.codec.context_tokens,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        model.half().save_pretrained(work)
        processor.output_sampling_rate = config.codec_config.sampling_rate
        processor.save_pretrained(work)
        (Path(work) / "UNTRAINED").write_text(UNTRAINED_NOTICE + "\n")
        shutil.rmtree(target, ignore_errors=True)
        Path(work).rename(target)
        Path(work).mkdir()  # the context manager removes it


class LazyDefault(dict):
    """The pipeline registry's default: the checkpoint's place is worked out when somebody asks for it."""

    def __init__(self):
        super().__init__(model=None)

    def __getitem__(self, key: str):
        return (str(embedded_checkpoint()), None) if key == "model" else super().__getitem__(key)


__all__ = ["EMBEDDED_NAME", "embedded_checkpoint", "embedded_config", "embedded_folder", "is_untrained"]
