# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Finding, loading and recognising the frozen LLM that a checkpoint refers to."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .llm_store import cached_llm


logger = logging.get_logger(__name__)

# What must agree between the configuration of a checkpoint and the LLM that is attached to it.
LLM_SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
)


class LanguageModelError(ValueError):
    """The LLM is missing or does not belong to the checkpoint; the message names the cure."""


def resolve_language_model(name_or_path: str | os.PathLike | None, checkpoint: str | os.PathLike | None = None) -> str:
    """Where an LLM's files are: a local folder, a folder beside the checkpoint, the user's cache, else the Hub id."""
    if name_or_path is None:
        raise LanguageModelError(
            "The checkpoint's llm_name_or_path is empty: pass language_model= (a loaded model, a folder or a Hub id)."
        )
    name = os.fspath(name_or_path)
    candidates = [Path(name).expanduser()]
    if checkpoint is not None:
        candidates.append(Path(checkpoint) / name)
    for candidate in candidates:
        if candidate.is_dir():
            return str(candidate)
    return str(cached_llm(name) or name)


def load_language_model(
    name_or_path: str | os.PathLike | None, checkpoint: str | os.PathLike | None = None, **kwargs
) -> PreTrainedModel:
    """Load the frozen LLM; ``kwargs`` go to `AutoModelForCausalLM.from_pretrained`.

    Raises:
        LanguageModelError: it is nowhere to be found.
    """
    place = resolve_language_model(name_or_path, checkpoint)
    kwargs.setdefault("dtype", "auto")
    try:
        return AutoModelForCausalLM.from_pretrained(place, **kwargs)
    except OSError as error:
        raise LanguageModelError(
            f"The frozen LLM {os.fspath(name_or_path)!r} was found neither as a folder nor in the cache, and the Hub "
            f"did not give it ({str(error).splitlines()[0]}). Pass language_model= (a loaded model, a folder or a Hub "
            "id); `python -m freeze_omni_hf.llm_store` puts SmolLM2-135M-Instruct into the cache."
        ) from error


def check_language_model(config: PreTrainedConfig, llm: PreTrainedModel) -> None:
    """Refuse an LLM whose family or sizes differ from the checkpoint's ``text_config``.

    Raises:
        LanguageModelError: naming each differing size.
    """
    if not isinstance(llm, PreTrainedModel):
        raise LanguageModelError(f"language_model must be a transformers model, not {type(llm).__name__}.")
    expected, given = config.get_text_config(), llm.config.get_text_config(decoder=True)
    wrong = []
    if config.text_config.model_type != llm.config.model_type:
        wrong.append(f"model_type {llm.config.model_type!r} instead of {config.text_config.model_type!r}")
    wrong += [
        f"{name} {getattr(given, name, None)} instead of {getattr(expected, name)}"
        for name in LLM_SIZES
        if getattr(expected, name, None) is not None and getattr(given, name, None) != getattr(expected, name)
    ]
    if wrong:
        name = getattr(llm.config, "_name_or_path", "") or type(llm).__name__
        raise LanguageModelError(
            f"The LLM {name!r} does not fit this checkpoint, which was made for {config.llm_name_or_path!r}: "
            + "; ".join(wrong)
            + "."
        )


def warn_other_revision(config: PreTrainedConfig, llm: PreTrainedModel) -> None:
    """Warn where an LLM of the right size has other weights than the one the speech parts were trained with."""
    if config.llm_fingerprint is None or getattr(llm, "is_quantized", False):
        return
    fingerprint = language_model_fingerprint(llm)
    if fingerprint != config.llm_fingerprint:
        logger.warning(
            f"The LLM's weights (fingerprint {fingerprint}) are not those that the speech parts were trained with "
            f"({config.llm_fingerprint}): another revision or a fine-tuned LLM. Hearing and voice may suffer."
        )


@torch.no_grad()
def cache_of(output: Any) -> Any:
    """The cache in an LLM's output: ``cache`` since transformers 5.24, ``past_key_values`` before."""
    return output.cache if "cache" in output else output.get("past_key_values")


def language_model_fingerprint(llm: nn.Module) -> str:
    """Short digest of an LLM's weights from a sample of each tensor, equal for float32 and bfloat16 copies."""
    digest = hashlib.sha256()
    for name, tensor in sorted(llm.state_dict().items()):
        if not tensor.is_floating_point() or tensor.is_meta:
            continue
        flat = tensor.reshape(-1)
        sample = flat[:: max(flat.numel() // 64, 1)][:64].to("cpu", torch.bfloat16)
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def state_hash(module: nn.Module) -> str:
    """SHA-256 of every bit of a module's state dict, to show that a frozen module stayed as it was."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


__all__ = [
    "LanguageModelError",
    "cache_of",
    "check_language_model",
    "language_model_fingerprint",
    "load_language_model",
    "resolve_language_model",
    "state_hash",
]
