# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Losses of the input stages (Freeze-Omni, section 3.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def supervised_positions(labels: Tensor) -> Tensor:
    """(B, S - 1) boolean: the positions whose next token is supervised by ``labels`` (B, S)."""
    return labels[:, 1:] != -100


def causal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in float32 of (N, classes) logits; -100 is left out, and nothing supervised gives zero."""
    count = (labels != -100).sum()
    total = F.cross_entropy(logits.float(), labels.to(logits.device), ignore_index=-100, reduction="sum")
    return total / count.clamp(min=1).to(total.device)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL divergence of the student from the teacher, both (N, vocab), averaged over positions.

    The teacher is the LLM reading the text, the student the same LLM hearing it.

    Raises:
        ValueError: different numbers of positions.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"The distillation target has shape {tuple(teacher.shape)}, the supervised positions have "
            f"{tuple(student.shape)}."
        )
    target = F.log_softmax(teacher.detach().to(student.device).float() / temperature, dim=-1)
    guess = F.log_softmax(student.float() / temperature, dim=-1)
    if not len(guess):
        return torch.zeros((), device=student.device)
    return F.kl_div(guess, target, log_target=True, reduction="batchmean") * temperature**2


__all__ = ["causal_loss", "distillation_loss", "supervised_positions"]
