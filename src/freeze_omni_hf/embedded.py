# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The embedded model: small speech parts around SmolLM2-135M-Instruct, the default of the pipeline and of `talk`."""

from pathlib import Path

from transformers import PreTrainedConfig

from .configuration import (
    FreezeOmniAdapterConfig,
    FreezeOmniCodecConfig,
    FreezeOmniConfig,
    FreezeOmniSpeechDecoderConfig,
    FreezeOmniSpeechEncoderConfig,
)
from .llm_store import DEFAULT_LLM


EMBEDDED_NAME = "freeze-omni-smollm2-135m"
SYSTEM_PROMPT = "You are a helpful voice assistant. Answer in one short sentence."


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


def embedded_checkpoint() -> Path:
    """Folder of the embedded checkpoint.

    Raises:
        OSError: the checkpoint is not there.
    """
    folder = embedded_folder()
    if not (folder / "model.safetensors").is_file():
        raise OSError(f"The embedded checkpoint is not in {folder}; install the package again, or name a model.")
    return folder


class LazyDefault(dict):
    """The pipeline registry's default: the checkpoint's place is worked out when somebody asks for it."""

    def __init__(self):
        super().__init__(model=None)

    def __getitem__(self, key: str):
        return (str(embedded_checkpoint()), None) if key == "model" else super().__getitem__(key)


__all__ = ["EMBEDDED_NAME", "embedded_checkpoint", "embedded_config", "embedded_folder"]
