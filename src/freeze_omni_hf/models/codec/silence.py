# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Cuts a stream of sound into pieces where it is nearly silent."""

import torch
import torch.nn.functional as F


class SilenceSplitter:
    """Holds sound back until a quiet moment, so that a gap between two pieces falls where nobody hears it.

    In the second half of every new stretch the quietest window is sought. If its mean amplitude is below the
    threshold, everything up to the quietest sample there is given out and the rest is held back; otherwise all of
    the stretch is held back. A stretch that is not longer than the window is held back too.

    Args:
        window: Samples of the window (2401 in the released settings, 100 ms).
        threshold: Mean amplitude below which a window counts as silent.
        trim_leading: Drop the samples of a sentence that come before the first one of at least this amplitude; None
            keeps them.
    """

    def __init__(self, window: int = 2401, threshold: float = 0.01, trim_leading: float | None = None):
        if window < 1:
            raise ValueError(f"The window of {window} samples must be at least 1 long.")
        self.window = window
        self.threshold = threshold
        self.trim_leading = trim_leading
        self._held: torch.Tensor | None = None
        self._started = False

    @property
    def held(self) -> torch.Tensor:
        """Sound (L,) that waits for a quiet moment."""
        return torch.zeros(0) if self._held is None else self._held

    def push(self, audio: torch.Tensor, threshold: float | None = None) -> torch.Tensor:
        """Takes the next stretch of sound (L,) and returns what may be played now (M,), M possibly 0.

        Args:
            audio: (L,) samples.
            threshold: Used instead of the splitter's for this stretch (a server may cut the first piece earlier).

        Raises:
            ValueError: ``audio`` has more than one dimension.
        """
        cut = self._find_cut(self._checked(audio), self.threshold if threshold is None else threshold)
        if cut is None:
            self._hold(audio)
            return audio[:0]
        self._hold(audio[:cut])
        piece, self._held = self._held, audio[cut:]
        return self._trimmed(piece)

    def finish(self, audio: torch.Tensor | None = None) -> torch.Tensor:
        """Takes the last stretch of a sentence, returns all that is left (M,) and is ready for the next sentence."""
        if audio is not None:
            self._hold(self._checked(audio))
        piece = self._trimmed(self.held)
        self.reset()
        return piece

    def reset(self) -> None:
        """Forgets what is held, for instance when the user interrupts."""
        self._held, self._started = None, False

    def _hold(self, audio: torch.Tensor) -> None:
        self._held = audio if self._held is None else torch.cat([self._held, audio])

    def _find_cut(self, audio: torch.Tensor, threshold: float) -> int | None:
        length = audio.shape[0]
        if length <= self.window:
            return None
        # Running sums in float64, one after the other: windows of digital silence come out as equal, to the bit.
        amplitude = audio.detach().cpu().double().abs()
        offset = length // 2 - self.window // 2
        running = F.pad(amplitude[offset:].cumsum(0), (1, 0))
        sums = running[self.window :] - running[: -self.window]
        quietest = int(sums.argmin())
        if float(sums[quietest]) / self.window >= threshold:
            return None
        start = offset + quietest
        # The released rule counts the position twice, so the stretch searched is longer than the window.
        end = min(length, quietest + self.window + start)
        return start + int(amplitude[start:end].argmin())

    def _trimmed(self, piece: torch.Tensor) -> torch.Tensor:
        if self.trim_leading is None or self._started:
            return piece
        loud = (piece.abs() >= self.trim_leading).nonzero()
        if len(loud) == 0:
            return piece[:0]
        self._started = True
        return piece[int(loud[0, 0]) :]

    @staticmethod
    def _checked(audio: torch.Tensor) -> torch.Tensor:
        if audio.dim() != 1:
            raise ValueError(f"The sound must be one-dimensional, not of shape {tuple(audio.shape)}.")
        return audio


__all__ = ["SilenceSplitter"]
