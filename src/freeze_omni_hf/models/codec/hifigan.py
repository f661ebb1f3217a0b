# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The released generator: tokens to samples with transposed convolutions (HiFi-GAN, arXiv 2010.05646)."""

import torch
import torch.nn.functional as F
from torch import nn

from ...configuration.codec import FreezeOmniCodecConfig
from .masking import channel_mask, masked


LEAK = 0.1


class FreezeOmniResidualBlock(nn.Module):
    """Dilated convolutions with residual connections; type ``"1"`` puts a plain one after each."""

    def __init__(self, channels: int, kernel_size: int, dilations: list[int], block_type: str):
        super().__init__()
        used = dilations[: 3 if block_type == "1" else 2]
        self.dilated_convs = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=(kernel_size - 1) * dilation // 2)
            for dilation in used
        )
        self.plain_convs = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, padding=(kernel_size - 1) // 2)
            for _ in (used if block_type == "1" else ())
        )

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """``hidden_states`` (B, C, T), ``mask`` (B, 1, T) -> (B, C, T)."""
        for index, dilated in enumerate(self.dilated_convs):
            branch = dilated(masked(F.leaky_relu(hidden_states, LEAK), mask))
            if self.plain_convs:
                branch = self.plain_convs[index](masked(F.leaky_relu(branch, LEAK), mask))
            hidden_states = hidden_states + branch
        return hidden_states

    @property
    def radius(self) -> int:
        """Steps to either side that an output depends on."""
        return sum(conv.padding[0] for conv in [*self.dilated_convs, *self.plain_convs])


def residual_blocks(config: FreezeOmniCodecConfig, channels: int, reverse: bool = False) -> nn.ModuleList:
    """The residual blocks of one stage, one a kernel size."""
    sizes = list(zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True))
    return nn.ModuleList(
        FreezeOmniResidualBlock(channels, kernel, dilations, config.resblock_type)
        for kernel, dilations in (reversed(sizes) if reverse else sizes)
    )


class FreezeOmniHifiGanGenerator(nn.Module):
    """Latents (B, D, N) to samples (B, N * samples_per_token)."""

    def __init__(self, config: FreezeOmniCodecConfig):
        super().__init__()
        channels = config.upsample_initial_channel
        self.speaker_stage = config.speaker_stage
        self.conv_in = nn.Conv1d(config.latent_size, channels, 7, padding=3)
        self.upsamplers = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            self.upsamplers.append(
                nn.ConvTranspose1d(channels, channels // 2, kernel, stride=rate, padding=(kernel - rate) // 2)
            )
            channels //= 2
            self.blocks.append(residual_blocks(config, channels))
        self.conv_out = nn.Conv1d(channels, 1, 7, padding=3)

    def forward(
        self, latents: torch.Tensor, speaker: torch.Tensor | None = None, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Args:
            latents: (B, D, N).
            speaker: (B, S) speaker vectors, or None.
            lengths: (B,) tokens of each row of a padded batch, None where all are ``N`` long.

        Returns:
            (B, N * samples_per_token) samples in [-1, 1].
        """
        hidden_states = self.conv_in(masked(latents, channel_mask(lengths, latents)))
        mask = channel_mask(lengths, hidden_states)
        for stage, (upsampler, blocks) in enumerate(zip(self.upsamplers, self.blocks, strict=True)):
            hidden_states = upsampler(masked(F.leaky_relu(hidden_states, LEAK), mask))
            if lengths is not None:
                lengths = lengths * upsampler.stride[0]
                mask = channel_mask(lengths, hidden_states)
            hidden_states = sum(block(hidden_states, mask) for block in blocks) / len(blocks)
            if stage == self.speaker_stage and speaker is not None:
                hidden_states = hidden_states + speaker[:, :, None]
        waveform = torch.tanh(self.conv_out(masked(F.leaky_relu(hidden_states, LEAK), mask)))
        return masked(waveform, mask)[:, 0]

    @property
    def context_tokens(self) -> int:
        """Tokens to either side that the samples of a token depend on."""
        first, last = 0, 1
        for upsampler in self.upsamplers:
            last *= upsampler.stride[0]
        last -= 1
        first, last = first - self.conv_out.padding[0], last + self.conv_out.padding[0]
        for upsampler, blocks in zip(reversed(self.upsamplers), reversed(self.blocks), strict=True):
            radius = max(block.radius for block in blocks)
            first, last = transposed_reach(
                first - radius, last + radius, upsampler.kernel_size[0], upsampler.stride[0]
            )
        first, last = first - self.conv_in.padding[0], last + self.conv_in.padding[0]
        return max(-first, last)


def transposed_reach(first: int, last: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Input steps that the outputs ``first`` to ``last`` of a centred transposed convolution depend on."""
    padding = (kernel_size - stride) // 2
    return -((kernel_size - 1 - first - padding) // stride), (last + padding) // stride
