# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The released checkpoint's layout: its files, its parameter names, its settings.

The released layout is a folder with ``audiollm/`` (encoder, adapter, prompts, state head), ``decoder/``, ``codec/``
and ``server.json``. Everything here reads; `convert` writes.
"""

import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ..configuration import FreezeOmniAdapterConfig, FreezeOmniSpeechDecoderConfig, FreezeOmniSpeechEncoderConfig


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message names the file and what is wrong with it."""


def load_pickle(path: Path) -> dict[str, Any]:
    """Read a checkpoint file without running code from it.

    Raises:
        ConversionError: the file is missing, truncated, no checkpoint, or holds more than tensors.
    """
    if not path.is_file():
        raise ConversionError(f"{path} is missing: the released layout needs it.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise ConversionError(f"{path} cannot be read; it is truncated or no checkpoint ({error}).") from error
    except pickle.UnpicklingError as error:
        raise ConversionError(f"{path} holds objects other than tensors, which are not loaded ({error}).") from error
    if not isinstance(state, dict):
        raise ConversionError(f"{path} holds a {type(state).__name__}, not a dictionary of tensors.")
    return state


def load_json(path: Path) -> Any:
    """Read a JSON file; a missing or broken one is named."""
    if not path.is_file():
        raise ConversionError(f"{path} is missing: the released layout needs it.")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ConversionError(f"{path} is no JSON file ({error}).") from error


def load_train_settings(path: Path) -> dict[str, Any]:
    """Read ``audiollm/train.yaml``."""
    if not path.is_file():
        raise ConversionError(f"{path} is missing: the released layout needs it.")
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConversionError(f"{path} is no YAML file ({error}).") from error


def load_cmvn(path: Path, as_json: bool) -> tuple[Tensor, Tensor]:
    """Mean and inverse standard deviation of the features from a JSON or a Kaldi text file."""
    if as_json:
        stats = load_json(path)
        total, squares, count = stats["mean_stat"], stats["var_stat"], stats["frame_num"]
    else:
        raw = path.read_bytes()
        if raw[:2] == b"\0B":
            raise ConversionError(f"{path} is a binary Kaldi matrix; write it as text (copy-matrix --binary=false).")
        numbers = [float(word) for word in raw.decode().split() if word not in "[]"]
        bins = (len(numbers) - 2) // 2
        total, count, squares = numbers[:bins], numbers[bins], numbers[bins + 1 : 2 * bins + 1]
    mean = torch.tensor(total, dtype=torch.float64) / count
    variance = torch.tensor(squares, dtype=torch.float64) / count - mean**2
    return mean.float(), variance.clamp(min=1e-20).rsqrt().float()


def encoder_config(settings: dict[str, Any]) -> FreezeOmniSpeechEncoderConfig:
    """The speech encoder's configuration from ``train.yaml``."""
    overview = _dashed(settings["encoder_conf"]["overview_conf"])
    layout = overview.get("encoder-layer-config", "tdnn-dtc")
    if [name.split("_")[0] for name in layout.split("-")] != ["subsampling", "transformer"]:
        raise ConversionError(f"encoder-layer-config={layout!r} is not supported; 'subsampling-transformer' is.")
    parts = dict(zip(("subsampling", "transformer"), layout.split("-"), strict=True))
    subsampling = _dashed(settings["encoder_conf"]["para_conf"][parts["subsampling"]])
    options = _dashed(settings["encoder_conf"]["para_conf"][parts["transformer"]])

    def option(name: str, default: Any) -> Any:
        return options.get(f"transformer-{name}", default)

    for name, default, wanted in (
        ("pos-enc-class", "abs-enc", "rel-enc"),
        ("positionwise-layer-type", "linear", "linear"),
    ):
        if option(name, default) != wanted:
            raise ConversionError(f"transformer-{name}={option(name, default)!r} cannot stream; only {wanted!r} can.")
    if subsampling.get("subsampling-rate", 4) != 4:
        raise ConversionError(f"subsampling-rate={subsampling['subsampling-rate']} is not supported; 4 is.")
    return FreezeOmniSpeechEncoderConfig(
        num_mel_bins=overview.get("encoder-input-dim", settings.get("input_dim", 80)),
        hidden_size=option("attention-dim", 256),
        num_hidden_layers=option("num-blocks", 6),
        num_attention_heads=option("attention-heads", 4),
        intermediate_size=option("linear-units", 1024),
        input_layer=option("input-layer", "linear"),
        normalize_before=option("normalize-before", True),
        concat_after=option("concat-after", False),
        chunk_size=option("chunk-size", -1),
        left_chunks=option("left-chunks", -1),
        dynamic_chunks=option("dynamic-chunks", True),
        position_rule="released",
        hidden_dropout=option("dropout-rate", 0.1),
        attention_dropout=option("attention-dropout-rate", 0.0),
        activation_dropout=option("dropout-rate", 0.1),
    )


def adapter_config(model: dict[str, Any], hidden_size: int, llm_hidden_size: int) -> FreezeOmniAdapterConfig:
    """The adapter's configuration from ``model_conf`` of ``train.yaml``."""
    kind = model.get("adpter_type", "cnn")
    return FreezeOmniAdapterConfig(
        adapter_type=kind,
        input_size=hidden_size,
        output_size=llm_hidden_size,
        num_convs=2 if 4 * hidden_size < llm_hidden_size else 1,
        kernel_size=model.get("kernel_size", 3),
        norm=model.get("norm", "batch"),
        hidden_act=model.get("activation_func", "relu"),
        batch_norm_momentum=0.99,
    )


def decoder_config(settings: list[Any], llm_hidden_size: int) -> FreezeOmniSpeechDecoderConfig:
    """The speech decoder's configuration from ``decoder/model.json``."""
    size, codes, options = settings
    if options.get("transformer_attention_dim", size) != size:
        raise ConversionError(
            f"decoder/model.json: transformer_attention_dim={options['transformer_attention_dim']} differs from "
            f"idim={size}; the released decoder has no projection between them."
        )
    if llm_hidden_size % size:
        raise ConversionError(
            f"decoder/model.json: the decoder's width idim={size} does not divide the LLM's hidden_size="
            f"{llm_hidden_size}; this checkpoint belongs to another LLM."
        )
    layers = options["transformer_num_blocks"]
    return FreezeOmniSpeechDecoderConfig(
        llm_hidden_size=llm_hidden_size,
        hidden_size=size,
        intermediate_size=options["transformer_linear_units"],
        num_attention_heads=options["transformer_attention_heads"],
        num_hidden_layers=layers,
        num_pre_layers=layers // 2,
        use_prefix=bool(options.get("kv_cache_prefix_finetune", 0)),
        codebook_size=codes,
    )


def _dashed(options: dict[str, Any]) -> dict[str, Any]:
    """Released keys come with dashes or underscores, and some with both."""
    return {key.replace("_", "-"): value for key, value in options.items()}


# (pattern of a released name, our name), tried in order; a name that matches nothing is reported.
AUDIO_RULES = (
    (r"encoder\.global_cmvn\.mean", r"speech_encoder.feature_mean"),
    (r"encoder\.global_cmvn\.istd", r"speech_encoder.feature_scale"),
    (r"encoder\.enc\.0\.core\.conv\.0\.(weight|bias)", r"speech_encoder.subsampling.conv1.\1"),
    (r"encoder\.enc\.0\.core\.conv\.2\.(weight|bias)", r"speech_encoder.subsampling.conv2.\1"),
    (r"encoder\.enc\.0\.core\.out\.0\.(weight|bias)", r"speech_encoder.subsampling.out.\1"),
    (r"encoder\.enc\.1\.embed\.0\.(weight|bias)", r"speech_encoder.input_proj.\1"),
    (r"encoder\.enc\.1\.embed\.1\.(weight|bias)", r"speech_encoder.input_norm.\1"),
    (r"encoder\.enc\.1\.after_norm\.(weight|bias)", r"speech_encoder.norm.\1"),
    (r"encoder\.enc\.1\.encoders\.(\d+)\.self_attn\.pos_bias_u", r"speech_encoder.layers.\1.attention.content_bias"),
    (r"encoder\.enc\.1\.encoders\.(\d+)\.self_attn\.pos_bias_v", r"speech_encoder.layers.\1.attention.position_bias"),
    (
        r"encoder\.enc\.1\.encoders\.(\d+)\.self_attn\.linear_pos\.weight",
        r"speech_encoder.layers.\1.attention.position_proj.weight",
    ),
    (
        r"encoder\.enc\.1\.encoders\.(\d+)\.self_attn\.linear_([qkv])\.(weight|bias)",
        r"speech_encoder.layers.\1.attention.\2_proj.\3",
    ),
    (
        r"encoder\.enc\.1\.encoders\.(\d+)\.self_attn\.linear_out\.(weight|bias)",
        r"speech_encoder.layers.\1.attention.o_proj.\2",
    ),
    (
        r"encoder\.enc\.1\.encoders\.(\d+)\.feed_forward\.w_1\.(weight|bias)",
        r"speech_encoder.layers.\1.up_proj.\2",
    ),
    (
        r"encoder\.enc\.1\.encoders\.(\d+)\.feed_forward\.w_2\.(weight|bias)",
        r"speech_encoder.layers.\1.down_proj.\2",
    ),
    (r"encoder\.enc\.1\.encoders\.(\d+)\.norm1\.(weight|bias)", r"speech_encoder.layers.\1.attention_norm.\2"),
    (r"encoder\.enc\.1\.encoders\.(\d+)\.norm2\.(weight|bias)", r"speech_encoder.layers.\1.feed_forward_norm.\2"),
    (r"encoder\.enc\.1\.encoders\.(\d+)\.concat_linear\.(weight|bias)", r"speech_encoder.layers.\1.concat_proj.\2"),
    (r"adpter\.(?:project|adpter)\.(weight|bias)", r"adapter.proj.\1"),
    (r"prompt_embeddings\.weight", r"prompt_embeddings.weight"),
    (r"task_embeddings\.weight", r"task_embeddings.weight"),
    (r"predictor_head\.(weight|bias)", r"state_head.\1"),
)
DECODER_RULES = (
    (r"embedding\.weight", r"speech_decoder.embedding.weight"),
    (r"out_fnn\.(weight|bias)", r"speech_decoder.head.\1"),
    (r"norm\.weight", r"speech_decoder.norm.weight"),
    (
        r"layers_prefix\.(\d+\.(?:self_attn|mlp|input_layernorm|post_attention_layernorm)\..*weight)",
        r"speech_decoder.prefix_layers.\1",
    ),
    (
        r"layers_pre_nn\.(\d+\.(?:self_attn|mlp|input_layernorm|post_attention_layernorm)\..*weight)",
        r"speech_decoder.pre_layers.\1",
    ),
    (
        r"layers\.(\d+\.(?:self_attn|mlp|input_layernorm|post_attention_layernorm)\..*weight)",
        r"speech_decoder.layers.\1",
    ),
)


def rename(name: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    """Our name of a released parameter, or None."""
    for pattern, target in rules:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, target, name)
    return None


def audio_name(name: str, config: FreezeOmniAdapterConfig) -> str | None:
    """Our name of a parameter of ``audiollm/final.pt``, or None.

    The adapter's convolutions are numbered in the released names by their place in the two-convolution layout.
    """
    match = re.fullmatch(r"adpter\.(conv1d|bn)([12])\.(.+)", name)
    if match:
        single = config.adapter_type == "subsampling" and config.num_convs == 1
        index = 0 if single else int(match[2]) - 1
        return f"adapter.convs.{index}.{'conv' if match[1] == 'conv1d' else 'norm'}.{match[3]}"
    return rename(name, AUDIO_RULES)


def decoder_name(name: str) -> str | None:
    """Our name of a parameter of ``decoder/final.pt``, or None."""
    return rename(name, DECODER_RULES)
