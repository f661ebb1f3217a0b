# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Choosing speech tokens, and the released rule for text."""

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor


class ExclusiveTopPLogitsWarper(LogitsProcessor):
    """Top-p as the released model samples text: the token that crosses ``top_p`` is left out, unless it is the first.

    (transformers keeps the crossing token.) Works on (B, vocab) scores after temperature and top-k.
    """

    def __init__(self, top_p: float, filter_value: float = -float("inf")):
        if not 0 <= top_p <= 1:
            raise ValueError(f"top_p={top_p} must lie between 0 and 1.")
        self.top_p, self.filter_value = top_p, filter_value

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        values, order = scores.sort(dim=-1, descending=True)
        remove = values.softmax(dim=-1).cumsum(dim=-1) > self.top_p
        remove[..., 0] = False
        return scores.masked_fill(remove.scatter(-1, order, remove), self.filter_value)


def penalise_recent(logits: Tensor, history: Tensor, window: int, penalty: float, rule: str) -> Tensor:
    """Lower the logits (B, V) of the last ``window`` tokens of ``history`` (B, N).

    ``"released"`` divides once for each occurrence, whatever the sign; ``"standard"`` acts once a token and
    multiplies negative logits. A window below 1 or a penalty of 1 is off.
    """
    if window < 1 or penalty == 1.0 or history.shape[1] == 0:
        return logits
    recent = history[:, -window:]
    if rule == "released":
        counts = torch.zeros_like(logits).scatter_add(1, recent, torch.ones_like(recent, dtype=logits.dtype))
        return logits / penalty**counts
    used = torch.zeros_like(logits, dtype=torch.bool).scatter(1, recent, True)
    return torch.where(used, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def choose_speech_tokens(logits: Tensor, history: Tensor, settings: Any, codebook_size: int, sample: bool) -> Tensor:
    """The next speech token of each row.

    Args:
        logits: (B, codebook_size + 4); only codes and the end token (third of the four special ids) can be chosen.
        history: (B, N) tokens so far, the start token first.
        settings: `FreezeOmniGenerationConfig`.
        codebook_size: Number of codes.
        sample: Sample among ``speech_top_k``, or take the best.
    """
    logits = penalise_recent(
        logits.float(), history, settings.speech_penalty_window, settings.speech_penalty, settings.speech_penalty_rule
    )
    allowed = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    allowed[:codebook_size] = True
    allowed[codebook_size + 2] = True
    logits = logits.masked_fill(~allowed, -torch.inf)
    if not sample or settings.speech_top_k == 1:
        return logits.argmax(dim=-1)
    best, ids = logits.topk(min(settings.speech_top_k, codebook_size + 1), dim=-1)
    picked = torch.multinomial((best / settings.speech_temperature).softmax(dim=-1), 1)
    return ids.gather(-1, picked).squeeze(-1)


__all__ = ["ExclusiveTopPLogitsWarper", "choose_speech_tokens", "penalise_recent"]
