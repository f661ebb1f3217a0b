# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Masks that make a row of a padded batch equal the same row alone.

A convolution pads its input with zeros, so a row alone sees zeros after its end. Every convolution of the codec
therefore runs on masked input: what stands after the end of a shorter row is set to zero first.
"""

import torch
from torch import nn


def length_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Boolean mask (B, ``size``) that is True before the end of each row; ``lengths`` is (B,)."""
    return torch.arange(size, device=lengths.device)[None] < lengths[:, None]


def channel_mask(lengths: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    """Mask (B, 1, T) in the type of ``like`` (B, C, T); None (nothing to mask) without lengths."""
    return None if lengths is None else length_mask(lengths, like.shape[-1])[:, None].to(like.dtype)


def masked(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """``values`` with zeros where ``mask`` is 0; untouched without a mask."""
    return values if mask is None else values * mask


class MaskedGroupNorm(nn.GroupNorm):
    """Group norm whose statistics run over the valid samples of each row."""

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """``hidden_states`` (B, C, T), ``mask`` (B, 1, T) -> (B, C, T)."""
        if mask is None:
            return super().forward(hidden_states)
        batch, channels, length = hidden_states.shape
        groups = hidden_states.view(batch, self.num_groups, channels // self.num_groups, length)
        valid = mask[:, None]
        count = valid.sum(dim=(2, 3), keepdim=True) * groups.shape[2]
        centred = (groups - (groups * valid).sum(dim=(2, 3), keepdim=True) / count) * valid
        variance = centred.square().sum(dim=(2, 3), keepdim=True) / count
        normed = (centred * torch.rsqrt(variance + self.eps)).view(batch, channels, length)
        return normed * self.weight[:, None] + self.bias[:, None]
