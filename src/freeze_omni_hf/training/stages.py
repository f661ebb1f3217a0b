# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What the stage scripts share: choosing what is trained, watching the LLM, evaluating, and saving."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from ..language_model import state_hash
from ..llm_store import cache_dir
from ..models import FreezeOmniForConditionalGeneration


logger = logging.getLogger(__name__)

PARTS = ("speech_encoder", "adapter", "prompt_embeddings", "task_embeddings", "state_head", "speech_decoder", "codec")


def train_only(model: FreezeOmniForConditionalGeneration, parts: Iterable[str]) -> list[str]:
    """Make the named parts trainable and freeze all others, the LLM always.

    Returns:
        The names of the trainable parameters.

    Raises:
        ValueError: a part that the model does not have.
    """
    parts = set(parts)
    unknown = sorted(part for part in parts if part not in PARTS or getattr(model, part, None) is None)
    if unknown:
        raise ValueError(f"The model has no {', '.join(unknown)}; its parts are {', '.join(PARTS)}.")
    model.requires_grad_(False)
    for part in parts:
        getattr(model, part).requires_grad_(True)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def encoder_optimizer(
    module: nn.Module, encoder: nn.Module, encoder_learning_rate: float, arguments: Any
) -> torch.optim.AdamW:
    """AdamW over what is trainable in ``module``; its speech encoder has a learning rate of its own.

    Args:
        module: What is trained.
        encoder: The speech encoder inside it.
        encoder_learning_rate: Learning rate of the encoder's parameters.
        arguments: `TrainingArguments` for the others' learning rate, and the weight decay of all.
    """
    slow = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in slow}
    others = [p for p in module.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": others}] + ([{"params": slow, "lr": encoder_learning_rate}] if slow else [])
    return torch.optim.AdamW(
        groups, lr=arguments.learning_rate, betas=(0.9, 0.98), weight_decay=arguments.weight_decay
    )


class FrozenParts(TrainerCallback):
    """Fails a run at its end if a module that should not change has changed by one bit.

    Args:
        modules: Names and modules, the LLM among them.
    """

    def __init__(self, modules: dict[str, nn.Module]):
        self.modules = modules
        self.before = {name: state_hash(module) for name, module in modules.items()}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs) -> None:
        changed = [name for name, module in self.modules.items() if state_hash(module) != self.before[name]]
        if changed:
            raise RuntimeError(f"Training changed {', '.join(changed)}, which this stage must leave alone.")
        logger.info("Unchanged after training: %s", ", ".join(self.modules))


class UnfreezeAt(TrainerCallback):
    """Keeps a module frozen until a step, so that what follows it finds its place first.

    Args:
        module: The module.
        step: Optimizer steps before it is trained.
    """

    def __init__(self, module: nn.Module, step: int):
        self.module, self.step = module, step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs) -> None:
        self.module.requires_grad_(state.global_step >= self.step)


def save_stage(model: FreezeOmniForConditionalGeneration, processor: Any, folder: str | Path) -> None:
    """Save speech parts and processor, so that the next stage and ``from_pretrained`` read the folder."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def in_cache(path: str) -> str:
    """A path of a recipe: ``{cache}`` stands for this package's cache."""
    return str(Path(path.replace("{cache}", str(cache_dir()))).expanduser())


__all__ = ["PARTS", "FrozenParts", "UnfreezeAt", "encoder_optimizer", "in_cache", "save_stage", "train_only"]
