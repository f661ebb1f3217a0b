# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What makes sound sound right: distances between spectra at several resolutions, and critics that look at them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torchaudio.functional import melscale_fbanks


# Magnitudes below are silence; logarithms stop there.
FLOOR = 1e-3


def magnitudes(samples: Tensor, fft_size: int) -> Tensor:
    """(B, frames, fft_size // 2 + 1) magnitudes of (B, T) samples, four windows to a window's length."""
    window = torch.hann_window(fft_size, device=samples.device)
    spectrum = torch.stft(samples.float(), fft_size, fft_size // 4, window=window, return_complex=True)
    return spectrum.abs().transpose(1, 2)


class MelDistance(nn.Module):
    """Mean distance of log-mel spectra at several resolutions (arXiv 1910.11480, 2306.06546).

    Args:
        sampling_rate: Samples per second.
        fft_sizes: Windows in samples.
    """

    def __init__(self, sampling_rate: int, fft_sizes: Sequence[int] = (2048, 1024, 512, 256)):
        super().__init__()
        self.fft_sizes = tuple(fft_sizes)
        for size in self.fft_sizes:
            mels = max(size // 16, 10)
            filters = melscale_fbanks(size // 2 + 1, 0.0, sampling_rate / 2, mels, sampling_rate)
            self.register_buffer(f"filters_{size}", filters, persistent=False)

    def forward(self, made: Tensor, wanted: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Scalar distance of (B, T) samples; ``lengths`` (B,) leaves padding out."""
        total = made.new_zeros(())
        for size in self.fft_sizes:
            filters = getattr(self, f"filters_{size}")
            mels = [(magnitudes(wave, size) @ filters).clamp(min=FLOOR).log() for wave in (made, wanted)]
            difference = (mels[0] - mels[1]).abs().mean(dim=-1)
            if lengths is None:
                total = total + difference.mean()
            else:
                real = torch.arange(difference.shape[1], device=made.device) * (size // 4) < lengths[:, None]
                total = total + (difference * real).sum() / real.sum()
        return total / len(self.fft_sizes)


class SpectrumCritic(nn.Module):
    """Convolutions over a log-magnitude spectrum (B, frames, bins) that score how real each place looks."""

    def __init__(self, channels: int):
        super().__init__()
        # Inputs, outputs, stride over bins, kernel over bins.
        sizes = [(1, channels, 1, 3), *[(channels, channels, 2, 9)] * 3, (channels, channels, 1, 3)]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (3, kernel), (1, stride), (1, kernel // 2)))
            for before, after, stride, kernel in sizes
        )
        self.out = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, spectrum: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores, and what each layer saw."""
        hidden, seen = spectrum[:, None], []
        for conv in self.convs:
            hidden = F.leaky_relu(conv(hidden), 0.1)
            seen.append(hidden)
        return self.out(hidden), seen


class SpectrumCritics(nn.Module):
    """Multi-resolution discriminator (after UnivNet, arXiv 2106.07889).

    Args:
        channels: Width of each.
        fft_sizes: Windows in samples.
    """

    def __init__(self, channels: int = 16, fft_sizes: Sequence[int] = (1024, 512, 256)):
        super().__init__()
        self.fft_sizes = tuple(fft_sizes)
        self.critics = nn.ModuleList(SpectrumCritic(channels) for _ in self.fft_sizes)

    def forward(self, samples: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """Scores and features of (B, T) samples, one pair a resolution."""
        return [
            critic(magnitudes(samples, size).clamp(min=FLOOR).log())
            for critic, size in zip(self.critics, self.fft_sizes, strict=True)
        ]

    def opinions(self, samples: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        """The same without gradients to the critics: what a generator listens to."""
        weights = {name: value.detach() for name, value in self.named_parameters()}
        return torch.func.functional_call(self, weights, (samples,))


def critic_loss(real: list, made: list) -> Tensor:
    """Hinge loss of the critics: real scores above 1, made ones below -1."""
    losses = [
        F.relu(1 - good.float()).mean() + F.relu(1 + bad.float()).mean()
        for (good, _), (bad, _) in zip(real, made, strict=True)
    ]
    return sum(losses) / len(losses)


def generator_losses(real: list, made: list) -> tuple[Tensor, Tensor]:
    """Adversarial loss (hinge) of a generator, and the distance of what the critics saw (feature matching)."""
    adversarial = sum(F.relu(1 - score.float()).mean() for score, _ in made) / len(made)
    pairs = [
        (a.float(), b.detach().float())
        for (_, seen), (_, wanted) in zip(made, real, strict=True)
        for a, b in zip(seen, wanted, strict=True)
    ]
    matching = sum((a - b).abs().mean() / b.abs().mean().clamp(min=1e-6) for a, b in pairs) / len(pairs)
    return adversarial, matching


__all__ = ["MelDistance", "SpectrumCritics", "critic_loss", "generator_losses", "magnitudes"]
