# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Log-mel frames of a waveform, all at once or chunk by chunk with the same numbers."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchaudio.compliance import kaldi
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank
from transformers.utils import logging

from ..models.cache import StreamCache
from .audio import AudioContentError, AudioRateError, AudioSource, is_waveform, load_audio, pcm_to_float


logger = logging.get_logger(__name__)

FEATURE_TYPES = ("kaldi", "whisper")
FRAME_SHIFT_MS = 10
FRAME_LENGTH_MS = 25
PCM_SCALE = 32768.0
# Whisper cuts a clip's log-mels 8 below its loudest bin, which a stream does not know yet. This is 8 below the
# loudest bin of speech of ordinary level.
WHISPER_FLOOR = -6.5


@dataclass(frozen=True)
class FeatureCache(StreamCache):
    """What the feature extractor remembers of a stream.

    Attributes:
        samples: (B, 240 + waiting) the last 15 ms that frames were made of (zeros at the start), then the samples that
            wait for their chunk to fill; 16 kHz.
    """

    samples: Tensor

    @classmethod
    def cat(cls, caches: list["FeatureCache"]) -> "FeatureCache":
        """One batch from the rows of several caches.

        Raises:
            ValueError: the streams have different numbers of samples waiting, so they do not step together.
        """
        widths = sorted({cache.samples.shape[1] for cache in caches})
        if len(widths) > 1:
            raise ValueError(
                f"Streams with {widths} samples in their caches cannot be stepped as one batch: they are at different "
                "places in their chunks. Feed whole chunks, or step them one by one."
            )
        return cls(torch.cat([cache.samples for cache in caches]))


class FreezeOmniFeatureExtractor(SequenceFeatureExtractor):
    """Log-mel filterbank, 25 ms frames every 10 ms (Freeze-Omni, section 3.1).

    Frame ``i`` covers the samples [160 i - 240, 160 i + 160) at 16 kHz: nothing of the future beyond its own 10 ms.
    Audio is padded with zeros at its end to whole chunks, so the number of frames is a multiple of ``chunk_frames``.

    Args:
        feature_size: Mel bins.
        sampling_rate: In Hz.
        chunk_frames: Frames of one chunk, 16 (160 ms) in the released model.
        max_seconds: Longest audio that is accepted; None for no limit.
        feature_type: ``"kaldi"``, as released, or ``"whisper"``: Whisper's filters and scale, for an encoder that
            started from its weights; its clip-wide maximum is a fixed floor here, so that it can stream.
        trailing_silence: Seconds of silence behind every utterance, for a model that names a word some time after it
            has heard it. In a live stream the pause after a turn is that silence.
        padding_value: Value of the frames that pad shorter rows of a batch.
    """

    model_input_names = ["input_features", "feature_attention_mask"]

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 16000,
        chunk_frames: int = 16,
        max_seconds: float | None = 120.0,
        feature_type: str = "kaldi",
        trailing_silence: float = 0.0,
        padding_value: float = 0.0,
        **kwargs,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        if chunk_frames < 1:
            raise ValueError(f"chunk_frames={chunk_frames} must be positive.")
        if feature_type not in FEATURE_TYPES:
            raise ValueError(f"feature_type={feature_type!r} is unknown; choose one of {FEATURE_TYPES}.")
        if not 0.0 <= trailing_silence <= 10.0:
            raise ValueError(f"trailing_silence={trailing_silence} must be between 0 and 10 seconds.")
        self.feature_type = feature_type
        self.trailing_silence = trailing_silence
        self.chunk_frames = chunk_frames
        self.max_seconds = max_seconds

    @property
    def hop_length(self) -> int:
        """Samples from frame to frame."""
        return self.sampling_rate * FRAME_SHIFT_MS // 1000

    @property
    def chunk_length(self) -> int:
        """Samples of one chunk."""
        return self.chunk_frames * self.hop_length

    @property
    def overlap_length(self) -> int:
        """Earlier samples that the first frame of a chunk reaches back to."""
        return self.sampling_rate * FRAME_LENGTH_MS // 1000 - self.hop_length

    @property
    def trailing_samples(self) -> int:
        """Samples of silence behind an utterance."""
        return round(self.trailing_silence * self.sampling_rate)

    def num_frames(self, num_samples: int) -> int:
        """Frames of an utterance of ``num_samples`` samples, silence and padding to whole chunks included."""
        return -(-(num_samples + self.trailing_samples) // self.chunk_length) * self.chunk_frames

    def __call__(
        self,
        audio: AudioSource | list[AudioSource],
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        **kwargs,
    ) -> BatchFeature:
        """Log-mel frames of one utterance or a batch of them.

        Args:
            audio: (samples,) array, tensor or list of floats, or a batch: a list of them or a (batch, samples) array.
            sampling_rate: Rate of ``audio`` in Hz; it must be the extractor's.
            padding: True or ``"longest"``, ``"max_length"``, or False.
            max_length: Frames to pad (or truncate) to, rounded up to whole chunks.
            truncation: Cut rows to ``max_length`` frames.
            return_attention_mask: Whether to return ``feature_attention_mask``; by default yes.
            return_tensors: ``"pt"`` or ``"np"`` (the default).
            kwargs: Not used; taken for the sake of callers that pass every setting to every part.

        Returns:
            ``input_features`` (B, T, feature_size) float32 and ``feature_attention_mask`` (B, T) int64, 1 on frames of
            the row's own chunks.

        Raises:
            AudioRateError: ``sampling_rate`` is not the extractor's.
            AudioError: audio that is empty, not finite, too long or not understood.
        """
        if sampling_rate is None:
            logger.warning_once(
                f"sampling_rate is not given; the audio is taken as {self.sampling_rate} Hz. Give it, so that a wrong "
                "rate is noticed."
            )
        elif sampling_rate != self.sampling_rate:
            raise AudioRateError(
                f"The audio has {sampling_rate} Hz, but this feature extractor works at {self.sampling_rate} Hz. "
                f"Resample it: load_audio(audio, {self.sampling_rate}, source_sampling_rate={sampling_rate})."
            )
        batch = _to_batch(audio)
        waveforms = [load_audio(item, self.sampling_rate, self.sampling_rate, self.max_seconds) for item in batch]
        features = self.pad(
            {"input_features": [self.stream(waveform, final=True)[0][0].numpy() for waveform in waveforms]},
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=self.chunk_frames if max_length is not None else None,
            return_attention_mask=True,
        )
        # Named apart from the tokenizer's mask, which a processor puts beside it.
        masks = [mask.astype(np.int64) for mask in features.pop("attention_mask")]
        if return_attention_mask is not False:
            features["feature_attention_mask"] = masks
        return BatchFeature(dict(features), tensor_type=return_tensors or "np")

    def stream(
        self, samples: "Tensor | np.ndarray | None", cache: FeatureCache | None = None, final: bool = False
    ) -> tuple[Tensor, FeatureCache | None]:
        """Frames of the chunks that ``samples`` complete.

        Any number of samples may come at a time; what does not fill a chunk waits in the cache. The frames of all
        calls together are those of the whole utterance.

        Args:
            samples: (n,) or (B, n) at the extractor's rate, floats or integer PCM; None for no new samples.
            cache: What the previous call returned; None starts an utterance.
            final: The utterance ends here: the trailing silence follows, padded with zeros to a whole chunk.

        Returns:
            (B, t, feature_size) frames, ``t`` a multiple of ``chunk_frames`` (possibly 0), and the new cache; None
            after ``final``, so that the next call starts the next utterance.

        Raises:
            AudioContentError: NaN or infinite samples.
            ValueError: a wrong shape, or a batch size other than the cache's.
        """
        samples = self._to_samples(samples, cache)
        if cache is None:
            waiting = torch.cat([samples.new_zeros(samples.shape[0], self.overlap_length), samples], dim=1)
        elif cache.batch_size != samples.shape[0]:
            raise ValueError(f"The samples have {samples.shape[0]} rows, the cache has {cache.batch_size}.")
        else:
            waiting = torch.cat([cache.samples.to(samples.device), samples], dim=1)
        count = waiting.shape[1] - self.overlap_length
        if final:
            count += self.trailing_samples
            waiting = torch.nn.functional.pad(waiting, (0, self.trailing_samples))
            waiting = torch.nn.functional.pad(waiting, (0, -count % self.chunk_length))
            count = waiting.shape[1] - self.overlap_length
        used = count // self.chunk_length * self.chunk_length
        # One chunk at a time: a matrix product of another height may round differently, and no frame may depend on how
        # many samples came with it.
        chunks = [
            self.log_mels(waiting[:, start : start + self.overlap_length + self.chunk_length])
            for start in range(0, used, self.chunk_length)
        ]
        features = torch.cat(chunks, dim=1) if chunks else waiting.new_zeros(len(waiting), 0, self.feature_size)
        # A copy: a view would keep every sample of the utterance alive.
        return features, None if final else FeatureCache(waiting[:, used:].clone())

    def log_mels(self, samples: Tensor) -> Tensor:
        """Log-mel frames that fit wholly into the samples, without any history or padding.

        Args:
            samples: (B, n) float32 in [-1, 1), at least one frame (25 ms) long.

        Returns:
            (B, 1 + (n - 400) // 160, feature_size): natural logarithms of energies of 16-bit samples, or Whisper's
            (log10 of the energy + 4) / 4.
        """
        if self.feature_type == "whisper":
            return whisper_log_mels(samples, self.feature_size, self.sampling_rate)
        return torch.stack(
            [
                kaldi.fbank(
                    row.unsqueeze(0) * PCM_SCALE,
                    dither=0.0,
                    frame_length=float(FRAME_LENGTH_MS),
                    frame_shift=float(FRAME_SHIFT_MS),
                    num_mel_bins=self.feature_size,
                    sample_frequency=float(self.sampling_rate),
                )
                for row in samples
            ]
        )

    def fetch_audio(self, audio_url_or_urls: AudioSource | list, sampling_rate: int | None = None) -> Any:
        """Load one source or a (nested) list of them; bare arrays are returned as they are.

        Raises:
            AudioError: as `load_audio`.
        """
        if isinstance(audio_url_or_urls, (list, tuple)) and not is_waveform(audio_url_or_urls):
            return [self.fetch_audio(item, sampling_rate) for item in audio_url_or_urls]
        if is_waveform(audio_url_or_urls):
            return audio_url_or_urls
        return load_audio(audio_url_or_urls, sampling_rate or self.sampling_rate, max_seconds=self.max_seconds)

    def _to_samples(self, samples: "Tensor | np.ndarray | None", cache: FeatureCache | None) -> Tensor:
        if samples is None:
            return torch.zeros(1 if cache is None else cache.batch_size, 0)
        if not isinstance(samples, Tensor):
            samples = torch.from_numpy(pcm_to_float(np.asarray(samples)))
        elif not samples.is_floating_point():
            samples = torch.from_numpy(pcm_to_float(samples.cpu().numpy())).to(samples.device)
        if samples.ndim not in (1, 2):
            raise ValueError(f"samples has the shape {tuple(samples.shape)}; give (n,) or (batch, n).")
        samples = samples.float().reshape(-1, samples.shape[-1]) if samples.ndim == 2 else samples.float()[None]
        if not torch.isfinite(samples).all():
            raise AudioContentError("The samples hold NaN or infinite values. Repair the source of the stream.")
        return samples


@cache
def _whisper_filters(bins: int, sampling_rate: int) -> Tensor:
    length = sampling_rate * FRAME_LENGTH_MS // 1000
    filters = mel_filter_bank(
        length // 2 + 1, bins, 0.0, sampling_rate / 2, sampling_rate, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters).float()


def whisper_log_mels(samples: Tensor, bins: int = 80, sampling_rate: int = 16000) -> Tensor:
    """(B, n) samples to (B, 1 + (n - 400) // 160, bins) frames on Whisper's scale, without its padding."""
    length, shift = sampling_rate * FRAME_LENGTH_MS // 1000, sampling_rate * FRAME_SHIFT_MS // 1000
    frames = samples.unfold(1, length, shift) * torch.hann_window(length, device=samples.device)
    energy = torch.fft.rfft(frames).abs().square() @ _whisper_filters(bins, sampling_rate).to(samples.device)
    return (energy.clamp(min=1e-10).log10().clamp(min=WHISPER_FLOOR) + 4.0) / 4.0


def _to_batch(audio: AudioSource | list[AudioSource]) -> list[AudioSource]:
    """A list of utterances: an array of two axes is a batch of rows."""
    if isinstance(audio, (np.ndarray, Tensor)) and audio.ndim == 2:
        return list(audio)
    if isinstance(audio, (list, tuple)) and not is_waveform(audio):
        return list(audio)
    return [audio]


__all__ = ["FeatureCache", "FreezeOmniFeatureExtractor"]
