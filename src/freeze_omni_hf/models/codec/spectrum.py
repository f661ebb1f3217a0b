# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Short-time Fourier transform whose frames lie centred on their hops, and its inverse.

``F`` hops give exactly ``F`` frames and ``F`` frames give exactly ``F * hop`` samples. A sample depends only on the
frames whose window covers it, so pieces decoded with enough context join without a seam. Everything runs in float32,
whatever the type of the model.
"""

import torch
import torch.nn.functional as F


# Magnitudes below are silence; logarithms stop there.
SMALLEST_MAGNITUDE = 1e-3


def log_magnitude(waveform: torch.Tensor, fft_size: int, hop_length: int) -> torch.Tensor:
    """Log-magnitude spectrum (B, T // hop, fft_size // 2 + 1) of ``waveform`` (B, T), T a multiple of the hop."""
    margin = (fft_size - hop_length) // 2
    window = torch.hann_window(fft_size, device=waveform.device, dtype=torch.float32)
    frames = F.pad(waveform.float(), (margin, margin)).unfold(-1, fft_size, hop_length)
    return torch.fft.rfft(frames * window).abs().clamp(min=SMALLEST_MAGNITUDE).log()


def inverse_transform(
    log_magnitudes: torch.Tensor,
    phases: torch.Tensor,
    fft_size: int,
    hop_length: int,
    frame_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Waveform of a spectrum by windowed overlap-add.

    Args:
        log_magnitudes: (B, F, fft_size // 2 + 1).
        phases: (B, F, fft_size // 2 + 1) in radians.
        fft_size: Window in samples.
        hop_length: Samples between frames.
        frame_mask: (B, F) True for the frames of each row of a padded batch; the others stay silent and have no part
            in the normalisation either.

    Returns:
        (B, F * hop_length) float32 samples, 0 after the end of a row.
    """
    window = torch.hann_window(fft_size, device=phases.device, dtype=torch.float32)
    spectrum = torch.polar(log_magnitudes.float().exp(), phases.float())
    frames = torch.fft.irfft(spectrum, n=fft_size) * window
    if frame_mask is None:
        weights = window.square().expand(1, frames.shape[1], fft_size)
    else:
        frames = frames * frame_mask[..., None]
        weights = window.square() * frame_mask[..., None]
    # Where no frame contributes (the padding of a row) the sum is zero: divide by one there.
    norm = _overlap_add(weights, hop_length)
    waveform = _overlap_add(frames, hop_length) / torch.where(norm > 0, norm, 1.0)
    # The last window of a row reaches into its padding.
    return waveform if frame_mask is None else waveform * frame_mask.repeat_interleave(hop_length, dim=1)


def _overlap_add(frames: torch.Tensor, hop_length: int) -> torch.Tensor:
    """Sum (B, F * hop) of ``frames`` (B, F, fft_size), half a window minus half a hop cut off at both ends."""
    _, num_frames, fft_size = frames.shape
    total = (num_frames - 1) * hop_length + fft_size
    summed = F.fold(frames.transpose(1, 2), (1, total), (1, fft_size), stride=(1, hop_length))
    margin = (fft_size - hop_length) // 2
    return summed[:, 0, 0, margin : total - margin]
