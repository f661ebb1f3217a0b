# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Names and settings of the released codec checkpoint (``codec/final.pt`` and ``codec/model.json``)."""

import re
from typing import Any, NamedTuple

import torch

from ...configuration.codec import FreezeOmniCodecConfig


CONFIG_NAMES = {
    "sampling_rate": "sampling_rate",
    "n_codes": "codebook_size",
    "n_code_groups": "num_code_groups",
    "residul_layer": "num_residual_layers",
    "codebook_loss_lambda": "codebook_loss_weight",
    "commitment_loss_lambda": "commitment_loss_weight",
    "global_code_num": "num_global_tokens",
    "global_feature_conv": "global_feature_conv",
    "global_tokens": "global_tokens",
    "upsample_rates": "upsample_rates",
    "upsample_kernel_sizes": "upsample_kernel_sizes",
    "upsample_initial_channel": "upsample_initial_channel",
    "resblock_kernel_sizes": "resblock_kernel_sizes",
    "resblock_dilation_sizes": "resblock_dilation_sizes",
}


class MappedWeights(NamedTuple):
    """Weights under our names, and what became of the names in the file."""

    state_dict: dict[str, torch.Tensor]
    used_keys: list[str]
    ignored_keys: list[str]


def released_codec_config(model_json: dict[str, Any]) -> FreezeOmniCodecConfig:
    """Configuration of the released network from the content of ``codec/model.json``.

    Settings of its training (learning rates, segment sizes, mel bands) have no counterpart and are left out.
    """
    settings = {ours: model_json[theirs] for theirs, ours in CONFIG_NAMES.items() if theirs in model_json}
    if "resblock" in model_json:
        settings["resblock_type"] = str(model_json["resblock"])
    return FreezeOmniCodecConfig(encoder_type="conv", generator_type="hifigan", **settings)


def fold_weight_norm(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Replaces each pair ``weight_g``, ``weight_v`` by the weight ``g * v / ||v||`` it stands for.

    The norm runs over all dimensions but the first, which for a transposed convolution is that of its inputs.
    Tensors of the result own their memory (the file may hold overlapping views) and are float32, integers excepted.

    Raises:
        KeyError: one half of a pair is missing.
    """
    folded = {}
    for name, value in state_dict.items():
        if name.endswith("weight_g"):
            if name[:-1] + "v" not in state_dict:
                raise KeyError(f"{name} has no partner {name[:-1]}v.")
        elif name.endswith("weight_v"):
            if name[:-1] + "g" not in state_dict:
                raise KeyError(f"{name} has no partner {name[:-1]}g.")
            direction, gain = _own(value), _own(state_dict[name[:-1] + "g"])
            norm = direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.dim() - 1))
            folded[name[:-2]] = direction * (gain / norm)
        else:
            folded[name] = _own(value)
    return folded


def released_codec_state_dict(
    generator: dict[str, torch.Tensor], quantizer: dict[str, torch.Tensor], encoder: dict[str, torch.Tensor]
) -> MappedWeights:
    """Maps the three parts of the released ``codec/final.pt`` to the names of `FreezeOmniCodec`.

    Args:
        generator, quantizer, encoder: The sub-dictionaries of the file, with weight norm or already folded.

    Returns:
        The weights under our names, the names of the file (``part.name``) they came from, and those left out.
    """
    parts = {"generator": generator, "quantizer": quantizer, "encoder": encoder}
    renamers = _renamers(generator, quantizer, encoder)
    mapped, used, ignored = {}, [], []
    for part, weights in parts.items():
        for name, value in fold_weight_norm(weights).items():
            new_name = renamers[part](name)
            sources = [f"{part}.{name}"] if name in weights else [f"{part}.{name}_g", f"{part}.{name}_v"]
            if new_name is None:
                ignored += sources
            else:
                mapped[f"{part}.{new_name}"] = value
                used += sources
    return MappedWeights(mapped, used, ignored)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().contiguous().clone()
    return tensor.float() if tensor.is_floating_point() else tensor


def _renamers(generator: dict, quantizer: dict, encoder: dict) -> dict:
    """For each part a function from its (folded) names to ours; None for a weight that has no use."""
    groups = len({name.split(".")[1] for name in quantizer if name.startswith("quantizer_modules.")})

    def count(names: dict, pattern: str) -> int:
        return len({found[0] for name in names if (found := re.match(pattern, name))})

    def rename_block(name: str, kernels: int) -> str | None:
        found = re.fullmatch(r"resblocks\.(\d+)\.(convs1|convs2|convs)\.(\d+)\.(weight|bias)", name)
        if found is None:
            return None
        stage, block = divmod(int(found[1]), kernels)
        kind = "plain_convs" if found[2] == "convs2" else "dilated_convs"
        return f"blocks.{stage}.{block}.{kind}.{found[3]}.{found[4]}"

    def rename_ends(name: str) -> str | None:
        found = re.fullmatch(r"conv_(pre|post)\.(weight|bias)", name)
        return None if found is None else f"conv_{'in' if found[1] == 'pre' else 'out'}.{found[2]}"

    def kernels_per_stage(names: dict) -> int:
        return count(names, r"resblocks\.\d+\.") // max(count(names, r"ups\.\d+\."), 1)

    def rename_generator(name: str) -> str | None:
        if name.startswith("ups."):
            return name.replace("ups.", "upsamplers.", 1)
        return rename_ends(name) or rename_block(name, kernels_per_stage(generator))

    def rename_encoder(name: str) -> str | None:
        if name.startswith("ups."):
            return name.replace("ups.", "downsamplers.", 1)
        if found := re.fullmatch(r"normalize\.(\d+)\.(weight|bias)", name):
            stage, block = divmod(int(found[1]), kernels_per_stage(encoder))
            return f"norms.{stage}.{block}.{found[2]}"
        if found := re.fullmatch(r"GlobalTokenEncoder\.conv\.(\d+)\.weight", name):
            # The activations between the convolutions are counted too.
            return f"speaker_encoder.convs.{int(found[1]) // 2}.weight"
        if found := re.fullmatch(r"GlobalTokenEncoder\.fn\.([02])\.(\w+)", name):
            return f"speaker_encoder.{'linear' if found[1] == '0' else 'norm'}.{found[2]}"
        return rename_ends(name) or rename_block(name, kernels_per_stage(encoder))

    def rename_quantizer(name: str) -> str | None:
        if found := re.fullmatch(r"quantizer_modules_globaltokens\.(\d+)\.embedding\.weight", name):
            return f"global_codebooks.{found[1]}.weight"
        if found := re.fullmatch(r"quantizer_modules(\d*)\.(\d+)\.embedding\.weight", name):
            layer = int(found[1] or 1) - 1
            return f"codebooks.{layer * groups + int(found[2])}.weight"
        return None

    return {"generator": rename_generator, "quantizer": rename_quantizer, "encoder": rename_encoder}


__all__ = ["MappedWeights", "fold_weight_norm", "released_codec_config", "released_codec_state_dict"]
