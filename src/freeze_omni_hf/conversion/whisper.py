# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Whisper's encoder weights (MIT) as a start of the speech encoder: same layers, causal subsampling, chunk masks."""

import os
import re
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperConfig, WhisperModel

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


def load_whisper_encoder(place: str | os.PathLike) -> tuple[WhisperConfig, dict[str, Tensor]]:
    """Configuration and encoder weights of a Whisper model: a Hub id, its folder, or a CTranslate2 ``model.bin``.

    Raises:
        OSError: the model is not there.
        ValueError: the file is no CTranslate2 Whisper model.
    """
    if os.fspath(place).endswith(".bin"):
        return read_ctranslate2_encoder(place)
    model = WhisperModel.from_pretrained(place, dtype=torch.float32)
    return model.config, model.encoder.state_dict()


def read_ctranslate2_encoder(path: str | os.PathLike) -> tuple[WhisperConfig, dict[str, Tensor]]:
    """Whisper's encoder from a CTranslate2 file (float32 or float16 weights), under transformers' names."""
    variables = _read_ctranslate2(Path(path).read_bytes(), path)
    layers = 1 + max(int(match[1]) for name in variables if (match := re.match(r"encoder/layer_(\d+)/", name)))
    weights: dict[str, np.ndarray] = {}

    def norm(target: str, source: str) -> None:
        weights[f"{target}.weight"], weights[f"{target}.bias"] = (
            variables[f"{source}/{part}"] for part in ("gamma", "beta")
        )

    def linear(target: str, source: str, part: slice = slice(None)) -> None:
        weights[f"{target}.weight"] = variables[f"{source}/weight"][part]
        weights[f"{target}.bias"] = variables[f"{source}/bias"][part]

    for name in ("conv1", "conv2"):
        linear(name, f"encoder/{name}")
    norm("layer_norm", "encoder/layer_norm")
    size = variables["encoder/conv1/bias"].shape[0]
    for index in range(layers):
        ours, theirs = f"layers.{index}", f"encoder/layer_{index}"
        for place, name in enumerate(("q_proj", "k_proj", "v_proj")):
            part = slice(place * size, (place + 1) * size)
            linear(f"{ours}.self_attn.{name}", f"{theirs}/self_attention/linear_0", part)
        del weights[f"{ours}.self_attn.k_proj.bias"]
        linear(f"{ours}.self_attn.out_proj", f"{theirs}/self_attention/linear_1")
        norm(f"{ours}.self_attn_layer_norm", f"{theirs}/self_attention/layer_norm")
        linear(f"{ours}.fc1", f"{theirs}/ffn/linear_0")
        linear(f"{ours}.fc2", f"{theirs}/ffn/linear_1")
        norm(f"{ours}.final_layer_norm", f"{theirs}/ffn/layer_norm")
    config = WhisperConfig(
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        d_model=size,
        encoder_layers=layers,
        encoder_attention_heads=int(variables["encoder/num_heads"]),
        encoder_ffn_dim=variables["encoder/layer_0/ffn/linear_0/bias"].shape[0],
    )
    return config, {name: torch.from_numpy(array.astype(np.float32)) for name, array in weights.items()}


def _read_ctranslate2(data: bytes, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All variables of a CTranslate2 model file: a header, then name, shape, type and bytes of each."""
    types = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
    place = 0

    def number(kind: str) -> int:
        nonlocal place
        value = struct.unpack_from("<" + kind, data, place)[0]
        place += struct.calcsize(kind)
        return value

    def text() -> str:
        nonlocal place
        size = number("H")
        place += size
        return data[place - size : place - 1].decode()

    try:
        number("I")
        name = text()
        if name != "WhisperSpec":
            raise ValueError(f"{path} is a CTranslate2 model of kind {name!r}, not Whisper.")
        number("I")
        variables = {}
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            kind, size = types[number("B")], number("I")
            count = size // np.dtype(kind).itemsize
            variables[name] = np.frombuffer(data, kind, count, place).reshape(shape)
            place += size
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CTranslate2 model, or it is truncated ({error}).") from error
    return variables


__all__ = ["load_whisper_encoder", "read_ctranslate2_encoder", "whisper_encoder_config", "whisper_encoder_state_dict"]
