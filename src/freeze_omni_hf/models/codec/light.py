# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The light encoder and generator: ConvNeXt blocks at two rates between spectrum and tokens.

The generator follows the idea of Vocos (arXiv 2306.00814): all layers work at token or frame rate and one inverse
Fourier transform makes the samples. Unlike Vocos, most of the context is covered at frame rate and kernels at token
rate are small, so that few neighbouring tokens are needed and streaming can be exact.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ...configuration.codec import FreezeOmniCodecConfig
from .conv_encoder import FreezeOmniSpeakerEncoder
from .hifigan import transposed_reach
from .masking import length_mask
from .spectrum import inverse_transform, log_magnitude


LARGEST_LOG_MAGNITUDE = math.log(100.0)


class FreezeOmniConvNextBlock(nn.Module):
    """Depthwise convolution, norm and a two-layer network, added with a learned scale (arXiv 2201.03545)."""

    def __init__(self, hidden_size: int, kernel_size: int, expansion: int):
        super().__init__()
        self.conv = nn.Conv1d(hidden_size, hidden_size, kernel_size, padding=kernel_size // 2, groups=hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.up = nn.Linear(hidden_size, expansion * hidden_size)
        self.down = nn.Linear(expansion * hidden_size, hidden_size)
        self.scale = nn.Parameter(torch.ones(hidden_size))

    def forward(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """``hidden_states`` (B, T, C), ``mask`` (B, T, 1) -> (B, T, C)."""
        inputs = hidden_states if mask is None else hidden_states * mask
        branch = self.conv(inputs.transpose(1, 2)).transpose(1, 2)
        branch = self.down(F.gelu(self.up(self.norm(branch))))
        return hidden_states + self.scale * branch


def _blocks(layers: int, hidden_size: int, kernel_size: int, expansion: int) -> nn.ModuleList:
    return nn.ModuleList(FreezeOmniConvNextBlock(hidden_size, kernel_size, expansion) for _ in range(layers))


def _step_mask(lengths: torch.Tensor | None, size: int, dtype: torch.dtype) -> torch.Tensor | None:
    """Mask (B, ``size``, 1), None without lengths."""
    return None if lengths is None else length_mask(lengths, size)[..., None].to(dtype)


class FreezeOmniStftEncoder(nn.Module):
    """Samples (B, T) to latents (B, D, T // samples_per_token) and, if configured, a speaker vector (B, S)."""

    def __init__(self, config: FreezeOmniCodecConfig):
        super().__init__()
        size, token_size = config.stft_hidden_size, config.istft_hidden_size
        self.fft_size, self.hop_length = config.fft_size, config.hop_length
        self.samples_per_token, self.frames_per_token = config.samples_per_token, config.frames_per_token
        self.linear_in = nn.Linear(config.fft_size // 2 + 1, size)
        self.norm_in = nn.LayerNorm(size, eps=1e-6)
        self.frame_blocks = _blocks(config.stft_frame_layers, size, config.frame_kernel_size, config.expansion)
        self.speaker_encoder = FreezeOmniSpeakerEncoder(config) if config.num_global_tokens else None
        self.downsampler = nn.Linear(size * config.frames_per_token, token_size)
        self.token_blocks = _blocks(config.stft_token_layers, token_size, config.token_kernel_size, config.expansion)
        self.norm_out = nn.LayerNorm(token_size, eps=1e-6)
        self.linear_out = nn.Linear(token_size, config.latent_size)

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            input_values: (B, T) samples.
            lengths: (B,) samples of each row of a padded batch, None where all are ``T`` long.

        Returns:
            Latents (B, D, T // samples_per_token), and speaker vectors (B, S) or None. Samples after the last whole
            token have no effect.
        """
        tokens = input_values.shape[-1] // self.samples_per_token
        waveform = input_values[:, : tokens * self.samples_per_token]
        frame_lengths = None
        if lengths is not None:
            lengths = lengths // self.samples_per_token
            frame_lengths = lengths * self.frames_per_token
            waveform = waveform * length_mask(lengths * self.samples_per_token, waveform.shape[-1])
        spectrum = log_magnitude(waveform, self.fft_size, self.hop_length)
        hidden_states = self.norm_in(self.linear_in(spectrum.to(self.linear_in.weight.dtype)))
        mask = _step_mask(frame_lengths, hidden_states.shape[1], hidden_states.dtype)
        for block in self.frame_blocks:
            hidden_states = block(hidden_states, mask)
        speaker = None
        if self.speaker_encoder is not None:
            speaker = self.speaker_encoder(hidden_states.transpose(1, 2), frame_lengths)
        hidden_states = self.downsampler(hidden_states.unflatten(1, (tokens, self.frames_per_token)).flatten(2))
        mask = _step_mask(lengths, tokens, hidden_states.dtype)
        for block in self.token_blocks:
            hidden_states = block(hidden_states, mask)
        return self.linear_out(self.norm_out(hidden_states)).transpose(1, 2), speaker


class FreezeOmniIstftGenerator(nn.Module):
    """Latents (B, D, N) to samples (B, N * samples_per_token)."""

    def __init__(self, config: FreezeOmniCodecConfig):
        super().__init__()
        size = config.istft_hidden_size
        self.fft_size, self.hop_length = config.fft_size, config.hop_length
        self.frames_per_token = config.frames_per_token
        kernel = config.token_kernel_size
        self.conv_in = nn.Conv1d(config.latent_size, size, kernel, padding=kernel // 2)
        self.speaker_in = nn.Linear(config.speaker_size, size) if config.num_global_tokens else None
        self.norm_in = nn.LayerNorm(size, eps=1e-6)
        self.token_blocks = _blocks(config.istft_token_layers, size, kernel, config.expansion)
        self.upsampler = nn.Linear(size, size * config.frames_per_token)
        self.frame_blocks = _blocks(config.istft_frame_layers, size, config.frame_kernel_size, config.expansion)
        self.norm_out = nn.LayerNorm(size, eps=1e-6)
        self.head = nn.Linear(size, 2 * (config.fft_size // 2 + 1))

    def forward(
        self, latents: torch.Tensor, speaker: torch.Tensor | None = None, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Args:
            latents: (B, D, N).
            speaker: (B, S) speaker vectors, or None.
            lengths: (B,) tokens of each row of a padded batch, None where all are ``N`` long.

        Returns:
            (B, N * samples_per_token) float32 samples.
        """
        mask = _step_mask(lengths, latents.shape[-1], latents.dtype)
        hidden_states = self.conv_in(latents if mask is None else latents * mask.transpose(1, 2)).transpose(1, 2)
        if self.speaker_in is not None and speaker is not None:
            hidden_states = hidden_states + self.speaker_in(speaker)[:, None]
        hidden_states = self.norm_in(hidden_states)
        for block in self.token_blocks:
            hidden_states = block(hidden_states, mask)
        hidden_states = self.upsampler(hidden_states).unflatten(2, (self.frames_per_token, -1)).flatten(1, 2)
        mask = None if mask is None else mask.repeat_interleave(self.frames_per_token, dim=1)
        for block in self.frame_blocks:
            hidden_states = block(hidden_states, mask)
        log_magnitudes, phases = self.head(self.norm_out(hidden_states)).float().chunk(2, dim=-1)
        log_magnitudes = log_magnitudes.clamp(max=LARGEST_LOG_MAGNITUDE)
        frame_mask = None if mask is None else mask[..., 0] > 0
        return inverse_transform(log_magnitudes, phases, self.fft_size, self.hop_length, frame_mask)

    @property
    def context_tokens(self) -> int:
        """Tokens to either side that the samples of a token depend on."""
        last = self.hop_length * self.frames_per_token - 1
        first, last = transposed_reach(0, last, self.fft_size, self.hop_length)
        radius = sum(block.conv.padding[0] for block in self.frame_blocks)
        first, last = transposed_reach(first - radius, last + radius, self.frames_per_token, self.frames_per_token)
        radius = sum(conv.padding[0] for conv in [self.conv_in, *(block.conv for block in self.token_blocks)])
        return max(radius - first, last + radius)
