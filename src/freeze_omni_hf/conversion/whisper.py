# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Whisper's encoder weights (MIT) as a start of the speech encoder: same layers, causal subsampling, chunk masks."""

import re

import torch
from torch import Tensor

from ..configuration import FreezeOmniSpeechEncoderConfig


RULES = (
    (r"conv([12])\.(weight|bias)", r"subsampling.conv\1.\2"),
    (r"layer_norm\.(weight|bias)", r"norm.\1"),
    (r"layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", r"layers.\1.attention.\2_proj.\3"),
    (r"layers\.(\d+)\.self_attn\.out_proj\.(weight|bias)", r"layers.\1.attention.o_proj.\2"),
    (r"layers\.(\d+)\.self_attn_layer_norm\.(weight|bias)", r"layers.\1.attention_norm.\2"),
    (r"layers\.(\d+)\.fc1\.(weight|bias)", r"layers.\1.up_proj.\2"),
    (r"layers\.(\d+)\.fc2\.(weight|bias)", r"layers.\1.down_proj.\2"),
    (r"layers\.(\d+)\.final_layer_norm\.(weight|bias)", r"layers.\1.feed_forward_norm.\2"),
)


def whisper_encoder_config(config, **kwargs) -> FreezeOmniSpeechEncoderConfig:
    """The speech encoder's configuration with the sizes of a ``WhisperConfig``; ``kwargs`` override.

    A frame is 20 ms, so 160 ms are 8 frames.
    """
    sizes = {
        "num_mel_bins": config.num_mel_bins,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.encoder_layers,
        "num_attention_heads": config.encoder_attention_heads,
        "intermediate_size": config.encoder_ffn_dim,
        "subsampling": "conv1d",
        "hidden_act": "gelu",
        "input_layer": "none",
        "position_rule": "additive",
        "chunk_size": 8,
    }
    return FreezeOmniSpeechEncoderConfig(**{**sizes, **kwargs})


def whisper_encoder_state_dict(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of `FreezeOmniSpeechEncoder` for the weights of a ``WhisperEncoder``; its positions are computed.

    Raises:
        ValueError: a weight that no Whisper encoder has.
    """
    mapped = {}
    for name, tensor in weights.items():
        if name == "embed_positions.weight":
            continue
        for pattern, target in RULES:
            if re.fullmatch(pattern, name):
                mapped[re.sub(pattern, target, name)] = tensor
                break
        else:
            raise ValueError(f"{name!r} is no weight of a Whisper encoder.")
        if name.endswith("k_proj.weight"):
            # Whisper's keys have no bias.
            mapped[re.sub(*RULES[2], name).replace("weight", "bias")] = torch.zeros(
                tensor.shape[0], dtype=tensor.dtype
            )
    return mapped


__all__ = ["whisper_encoder_config", "whisper_encoder_state_dict"]
