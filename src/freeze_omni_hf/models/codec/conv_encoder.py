# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The released encoder: samples to latents with strided convolutions, and the speaker network (TiCodec)."""

import torch
import torch.nn.functional as F
from torch import nn

from ...configuration.codec import FreezeOmniCodecConfig
from .hifigan import LEAK, residual_blocks
from .masking import MaskedGroupNorm, channel_mask, masked


CHANNELS_PER_NORM_GROUP = 16
# The released encoder leaves the slope of its last activation at the default.
LAST_LEAK = 0.01


class FreezeOmniSpeakerEncoder(nn.Module):
    """Time-invariant features of an utterance: convolutions, mean over time, linear layer (TiCodec)."""

    def __init__(self, config: FreezeOmniCodecConfig):
        super().__init__()
        inputs, hidden, outputs, kernel, stride = config.global_feature_conv
        widths = (inputs, hidden, hidden, outputs)
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel, stride=stride, padding=(kernel - stride) // 2, bias=False)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.linear = nn.Linear(outputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """``features`` (B, C, T) with ``lengths`` (B,) valid steps -> (B, S).

        An utterance shorter than the three kernels is padded with zeros to give one step.
        """
        missing = self._minimum_length() - features.shape[-1]
        if missing > 0:
            if lengths is None:
                lengths = torch.full(features.shape[:1], features.shape[-1], device=features.device)
            features = F.pad(features, (0, missing))
        mask = channel_mask(lengths, features)
        for conv in self.convs:
            features = F.leaky_relu(conv(masked(features, mask)), LEAK)
            if lengths is not None:
                lengths = (lengths + 2 * conv.padding[0] - conv.kernel_size[0]) // conv.stride[0] + 1
                lengths = lengths.clamp(min=1)  # the one step of an utterance shorter than the kernels
                mask = channel_mask(lengths, features)
        mean = features.mean(-1) if mask is None else (features * mask).sum(-1) / mask.sum(-1)
        return self.norm(F.leaky_relu(self.linear(mean), LEAK))

    def _minimum_length(self) -> int:
        length = 1
        for conv in self.convs:
            length = (length - 1) * conv.stride[0] + conv.kernel_size[0] - 2 * conv.padding[0]
        return length


class FreezeOmniConvEncoder(nn.Module):
    """Samples (B, T) to latents (B, D, T // samples_per_token) and a speaker vector (B, S)."""

    def __init__(self, config: FreezeOmniCodecConfig):
        super().__init__()
        channels = config.encoder_channels
        self.conv_in = nn.Conv1d(1, channels, 7, padding=3)
        self.downsamplers = nn.ModuleList()
        self.blocks = nn.ModuleList()
        self.norms = nn.ModuleList()
        rates = list(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True))
        for rate, kernel in reversed(rates):
            self.downsamplers.append(
                nn.Conv1d(channels, channels * 2, kernel, stride=rate, padding=(kernel - rate) // 2)
            )
            channels *= 2
            self.blocks.append(residual_blocks(config, channels, reverse=True))
            self.norms.append(
                nn.ModuleList(
                    MaskedGroupNorm(channels // CHANNELS_PER_NORM_GROUP, channels, eps=1e-6)
                    for _ in config.resblock_kernel_sizes
                )
            )
        self.speaker_after = len(rates) // 2 - 1
        self.speaker_encoder = FreezeOmniSpeakerEncoder(config) if config.num_global_tokens else None
        self.conv_out = nn.Conv1d(channels, config.latent_size, 3, padding=1)

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            input_values: (B, T) samples.
            lengths: (B,) samples of each row of a padded batch, None where all are ``T`` long.

        Returns:
            Latents (B, D, T // samples_per_token), and speaker vectors (B, S) or None.
        """
        speaker = None
        hidden_states = input_values[:, None]
        hidden_states = self.conv_in(masked(hidden_states, channel_mask(lengths, hidden_states)))
        mask = channel_mask(lengths, hidden_states)
        for stage, downsampler in enumerate(self.downsamplers):
            hidden_states = downsampler(masked(F.leaky_relu(hidden_states, LEAK), mask))
            if lengths is not None:
                lengths = lengths // downsampler.stride[0]
                mask = channel_mask(lengths, hidden_states)
            # Each norm but the first sees the sum so far, not its own block alone.
            total = 0
            for block, norm in zip(self.blocks[stage], self.norms[stage], strict=True):
                total = norm(total + block(hidden_states, mask), mask)
            hidden_states = total / len(self.blocks[stage])
            if stage == self.speaker_after and self.speaker_encoder is not None:
                speaker = self.speaker_encoder(hidden_states, lengths)
        return self.conv_out(masked(F.leaky_relu(hidden_states, LAST_LEAK), mask)), speaker
