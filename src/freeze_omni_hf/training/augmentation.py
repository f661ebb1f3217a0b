# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What happens to speech on its way to a microphone: noise, rooms, level, clipping, telephones, tempo.

All functions take and return (samples,) float32 arrays and draw every random number from the generator they are
given: the same generator gives the same result. Nothing changes its input.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import soxr
import torch


NOISES = ("white", "pink", "brown", "babble")


def row_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one row in one epoch: independent of workers, nodes and the order of rows."""
    return np.random.default_rng((seed, epoch, index))


def noise(count: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """(count,) noise of unit power: "white", or with power falling as 1/f ("pink") or 1/f² ("brown").

    Raises:
        ValueError: an unknown kind.
    """
    exponents = {"white": 0.0, "pink": 0.5, "brown": 1.0}
    if kind not in exponents:
        raise ValueError(f"Noise of the kind {kind!r} is not known; known are {', '.join(NOISES)}.")
    spectrum = np.fft.rfft(rng.standard_normal(count))
    # Below the hundredth part of the band the level stays, else all power would lie where nobody hears it.
    frequency = np.maximum(np.arange(len(spectrum)), max(1.0, 0.01 * len(spectrum)))
    return _unit(np.fft.irfft(spectrum / frequency ** exponents[kind], count))


def babble(voices: list[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) murmur of unit power: every voice repeated from a random place on, at its own level.

    Raises:
        ValueError: no voices.
    """
    if not voices:
        raise ValueError("Babble is made of other rows; give at least one.")
    mixed = np.zeros(count)
    for voice in voices:
        start = int(rng.integers(len(voice)))
        mixed += rng.uniform(0.5, 1.0) * np.resize(np.roll(_unit(voice), -start), count)
    return _unit(mixed)


def add_noise(
    samples: np.ndarray,
    snr_db: float,
    kind: str,
    rng: np.random.Generator,
    voices: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Adds noise at a signal-to-noise ratio over the whole of ``samples``; nothing is clipped.

    Args:
        samples: (samples,) speech.
        snr_db: Power of the speech over that of the noise, in dB.
        kind: "white", "pink", "brown" or "babble".
        rng: Where chance comes from.
        voices: For babble, other speech at the same rate.

    Returns:
        (samples,) float32 array; silence stays silence.
    """
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    count = len(samples)
    added = babble(voices or [], count, rng) if kind == "babble" else noise(count, kind, rng)
    return (samples + np.sqrt(power / 10 ** (snr_db / 10)) * added).astype(np.float32)


def room_response(
    rng: np.random.Generator, reverberation: float = 0.4, direct_db: float = 3.0, sampling_rate: int = 16000
) -> np.ndarray:
    """A made-up room: the direct sound, then noise that decays by 60 dB in ``reverberation`` seconds.

    Args:
        direct_db: Power of the direct sound over that of all echoes; less is farther away.

    Returns:
        (taps,) float32 array; its first tap is the direct sound, so nothing is delayed.
    """
    taps = max(2, int(reverberation * sampling_rate))
    time = np.arange(taps) / sampling_rate
    echoes = rng.standard_normal(taps) * 10 ** (-3 * time / reverberation)
    # The first reflection takes some milliseconds.
    echoes[: int(rng.uniform(0.002, 0.01) * sampling_rate)] = 0.0
    power = float(np.sum(np.square(echoes)))
    response = echoes / np.sqrt(max(power, 1e-12) * 10 ** (direct_db / 10))
    response[0] = 1.0
    return response.astype(np.float32)


def in_room(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """``samples`` as heard in a room, at their old level and length: the last echoes are cut off."""
    size = 1 << (len(samples) + len(response) - 2).bit_length()
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]
    return (wet * (_rms(samples) / max(_rms(wet), 1e-9))).astype(np.float32)


def gain(samples: np.ndarray, db: float) -> np.ndarray:
    """Louder or softer by ``db``; what exceeds [-1, 1] is clipped, as in a recording."""
    return np.clip(samples * 10 ** (db / 20), -1.0, 1.0).astype(np.float32)


def clip(samples: np.ndarray, share: float) -> np.ndarray:
    """Cuts the peaks off at ``share`` of the highest one."""
    level = share * float(np.max(np.abs(samples), initial=0.0))
    return np.clip(samples, -level, level).astype(np.float32)


def telephone(samples: np.ndarray, sampling_rate: int = 16000) -> np.ndarray:
    """Through a telephone: 300 to 3400 Hz at 8 kHz, 8-bit mu-law (G.711's curve, 255), and back to the old rate."""
    narrow = soxr.resample(samples.astype(np.float32), sampling_rate, 8000)
    spectrum = np.fft.rfft(narrow)
    frequency = np.fft.rfftfreq(len(narrow), 1 / 8000) if len(narrow) else np.zeros(0)
    narrow = np.fft.irfft(spectrum * ((frequency >= 300) & (frequency <= 3400)), len(narrow))
    narrow = np.clip(narrow, -1.0, 1.0)
    companded = np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)
    quantised = np.round(companded * 127) / 127
    narrow = np.sign(quantised) * np.expm1(np.abs(quantised) * np.log(256)) / 255
    wide = soxr.resample(narrow.astype(np.float32), 8000, sampling_rate)
    return np.resize(np.pad(wide, (0, max(0, len(samples) - len(wide)))), len(samples)).astype(np.float32)


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Faster (above 1) or slower, with the pitch moving along; (samples / factor,) float32 array."""
    if factor == 1.0:
        return samples.astype(np.float32)
    return soxr.resample(samples.astype(np.float32), round(10000 * factor), 10000).astype(np.float32)


def pad_silence(samples: np.ndarray, before: float, after: float, sampling_rate: int = 16000) -> np.ndarray:
    """Silence of so many seconds ``before`` and ``after``."""
    return np.pad(samples, (int(before * sampling_rate), int(after * sampling_rate))).astype(np.float32)


def spec_augment(
    features: torch.Tensor,
    rng: np.random.Generator,
    frequency_masks: int = 1,
    frequency_width: int = 10,
    time_masks: int = 1,
    time_width: int = 20,
) -> torch.Tensor:
    """SpecAugment (arXiv 1904.08779) without time warping; the defaults are the released run's.

    Args:
        features: (T, bins) log-mel frames of one row, without padding.
        frequency_masks, frequency_width: How many bands, and the widest in bins.
        time_masks, time_width: How many stretches, and the longest in frames; at most a fifth of the row.

    Returns:
        (T, bins), a copy whose masked places hold the row's mean.
    """
    masked = features.clone()
    mean = features.mean()
    frames, bins = features.shape
    for _ in range(frequency_masks):
        width = int(rng.integers(0, min(frequency_width, bins) + 1))
        start = int(rng.integers(0, bins - width + 1))
        masked[:, start : start + width] = mean
    for _ in range(time_masks):
        width = int(rng.integers(0, min(time_width, frames // 5) + 1))
        start = int(rng.integers(0, frames - width + 1))
        masked[start : start + width] = mean
    return masked


@dataclass
class Augmentation:
    """Chances and ranges of everything above, as they stand in a recipe's YAML; called on each row in training.

    A probability of 0 turns a part off. Ranges are (lowest, highest).
    """

    speed_probability: float = 0.3
    speed: tuple[float, float] = (0.9, 1.1)
    room_probability: float = 0.3
    reverberation: tuple[float, float] = (0.1, 0.7)
    direct_db: tuple[float, float] = (-2.0, 10.0)
    noise_probability: float = 0.5
    snr_db: tuple[float, float] = (5.0, 30.0)
    kinds: tuple[str, ...] = NOISES
    babble_voices: int = 4
    telephone_probability: float = 0.05
    clip_probability: float = 0.03
    clip_share: tuple[float, float] = (0.2, 0.7)
    gain_probability: float = 0.7
    gain_db: tuple[float, float] = (-15.0, 6.0)
    silence_probability: float = 0.5
    silence_before: tuple[float, float] = (0.0, 0.5)
    silence_after: tuple[float, float] = (0.0, 0.5)
    sampling_rate: int = 16000

    @classmethod
    def from_dict(cls, settings: dict[str, Any] | None) -> "Augmentation":
        """From a recipe's mapping.

        Raises:
            ValueError: a setting that does not exist.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(settings or {}) - known)
        if unknown:
            raise ValueError(f"Augmentation has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        return cls(**(settings or {}))

    @classmethod
    def off(cls) -> "Augmentation":
        """Leaves every row as it is."""
        return cls(**{field.name: 0.0 for field in fields(cls) if field.name.endswith("_probability")})

    def __call__(
        self, samples: np.ndarray, rng: np.random.Generator, voices: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """One row as it may be heard.

        Args:
            samples: (samples,) speech at ``sampling_rate``.
            rng: The row's generator, see `row_generator`.
            voices: Other rows, for babble; without them another noise is taken.

        Returns:
            (other number of samples,) float32 array in [-1, 1].
        """

        def happens(probability: float) -> bool:
            return float(rng.random()) < probability

        if happens(self.speed_probability):
            samples = change_speed(samples, float(rng.uniform(*self.speed)))
        if happens(self.silence_probability):
            before, after = rng.uniform(*self.silence_before), rng.uniform(*self.silence_after)
            samples = pad_silence(samples, before, after, self.sampling_rate)
        if happens(self.room_probability):
            reverberation, direct = rng.uniform(*self.reverberation), rng.uniform(*self.direct_db)
            samples = in_room(samples, room_response(rng, reverberation, direct, self.sampling_rate))
        if happens(self.noise_probability):
            kinds = [kind for kind in self.kinds if voices or kind != "babble"]
            kind = kinds[int(rng.integers(len(kinds)))]
            chosen = [voices[int(i)] for i in rng.integers(len(voices), size=self.babble_voices)] if voices else None
            samples = add_noise(samples, float(rng.uniform(*self.snr_db)), kind, rng, chosen)
        if happens(self.clip_probability):
            samples = clip(samples, float(rng.uniform(*self.clip_share)))
        if happens(self.telephone_probability):
            samples = telephone(samples, self.sampling_rate)
        if happens(self.gain_probability):
            samples = gain(samples, float(rng.uniform(*self.gain_db)))
        return np.clip(samples, -1.0, 1.0).astype(np.float32)


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def _unit(samples: np.ndarray) -> np.ndarray:
    return samples / max(_rms(samples), 1e-9)


__all__ = [
    "NOISES",
    "Augmentation",
    "add_noise",
    "babble",
    "change_speed",
    "clip",
    "gain",
    "in_room",
    "noise",
    "pad_silence",
    "room_response",
    "row_generator",
    "spec_augment",
    "telephone",
]
