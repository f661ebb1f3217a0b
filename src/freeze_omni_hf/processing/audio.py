# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Sound in and out: any source becomes a mono float32 array, any waveform becomes a file."""

import base64
import binascii
import io
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
import torch


AudioSource = Any
"""Path, URL, bytes, binary file object, array, tensor, list of floats, or a dict that holds one of them."""

MAX_CHANNELS = 8
DICT_KEYS = ("array", "raw", "audio", "bytes", "path", "url")


class AudioError(ValueError):
    """Audio that cannot be used. The message names the source and the cure."""


class AudioNotFoundError(AudioError, FileNotFoundError):
    """A file or an address that does not exist or cannot be reached, or a folder that is missing."""


class AudioFormatError(AudioError):
    """A file format, data type or shape that is not understood."""


class AudioContentError(AudioError):
    """Audio without samples, or with samples that are not finite."""


class AudioRateError(AudioError):
    """A sampling rate that is missing, not positive, or not the expected one."""


class AudioTooLongError(AudioError):
    """Audio longer than the limit."""


def load_audio(
    source: AudioSource,
    sampling_rate: int = 16000,
    source_sampling_rate: int | None = None,
    max_seconds: float | None = None,
    timeout: float = 30.0,
) -> np.ndarray:
    """Read audio from nearly anything and bring it to one sampling rate and one channel.

    Channels are mixed down by their mean. Integer samples are scaled by their type (int16, int32, uint8) to [-1, 1);
    floats are taken as they are. Silence is audio like any other.

    Args:
        source: A path; a ``http(s)://``, ``file://`` or ``data:`` URL; the bytes of an audio file; a binary file
            object; a numpy array, torch tensor or list of floats, (samples,), (channels, samples) or (samples,
            channels); or a dict with one of ``array``, ``raw``, ``audio``, ``bytes``, ``path``, ``url`` and, for an
            array, ``sampling_rate``.
        sampling_rate: Wanted rate in Hz.
        source_sampling_rate: Rate of an array in Hz. Files know their own.
        max_seconds: Longest audio that is accepted.
        timeout: Seconds to wait for a URL.

    Returns:
        (samples,) float32 array at ``sampling_rate``.

    Raises:
        AudioNotFoundError: the file or URL is not there.
        AudioFormatError: the format, data type or shape is not understood.
        AudioContentError: there are no samples, or some are NaN or infinite.
        AudioRateError: an array comes without its rate, or a rate is not positive.
        AudioTooLongError: it is longer than ``max_seconds``.
    """
    _check_rate(sampling_rate, "The wanted sampling_rate")
    samples, rate, name = _read(source, source_sampling_rate, max_seconds, timeout)
    if samples.size == 0:
        raise AudioContentError(f"{name} is empty: it holds no samples. Check the recording.")
    _check_length(samples.size, rate, max_seconds, name)
    if not np.isfinite(samples).all():
        raise AudioContentError(
            f"{name} holds NaN or infinite samples. Repair the source, for example with np.nan_to_num."
        )
    if rate != sampling_rate:
        # soxr rather than torchaudio.functional.resample: five times as fast from 44.1 kHz on a CPU.
        samples = soxr.resample(samples, rate, sampling_rate)
        if samples.size == 0:
            raise AudioContentError(f"{name} is too short: nothing is left of it at {sampling_rate} Hz.")
    return np.ascontiguousarray(samples, dtype=np.float32)


def save_audio(
    audio: Any,
    path: str | os.PathLike | BinaryIO | Sequence[str | os.PathLike],
    sampling_rate: int = 24000,
) -> "Path | BinaryIO | list[Path]":
    """Write mono audio as a 16-bit file; the format follows the name (WAV, FLAC, OGG, MP3).

    Floats beyond [-1, 1] are clipped, never wrapped around.

    Args:
        audio: (samples,) array or tensor, or a batch: (batch, samples) or a list of arrays of any lengths.
        path: File name, or a binary file object (WAV is written). For a batch of several rows a list of names, or one
            name, to which ``-0``, ``-1``, … is added.
        sampling_rate: In Hz.

    Returns:
        What was written: one path or file object, or a list of paths for several rows.

    Raises:
        AudioNotFoundError: the folder does not exist.
        AudioFormatError: no audio, a wrong shape, an unknown file ending, or not as many names as rows.
        AudioContentError: NaN or infinite samples.
        AudioRateError: the rate is not positive.
    """
    _check_rate(sampling_rate, "sampling_rate")
    rows = _to_rows(audio)
    if hasattr(path, "write"):
        if len(rows) != 1:
            raise AudioFormatError(f"{len(rows)} waveforms do not fit into one file object; save them one by one.")
        soundfile.write(path, rows[0], sampling_rate, subtype="PCM_16", format="WAV")
        return path
    if isinstance(path, (str, os.PathLike)):
        path = Path(path)
        if len(rows) == 1:
            return _write(path, rows[0], sampling_rate)
        paths = [path.with_name(f"{path.stem}-{index}{path.suffix}") for index in range(len(rows))]
    else:
        paths = [Path(item) for item in path]
        if len(paths) != len(rows):
            raise AudioFormatError(f"{len(rows)} waveforms, but {len(paths)} file names; give one name a waveform.")
    return [_write(name, row, sampling_rate) for name, row in zip(paths, rows, strict=True)]


def pcm_to_float(samples: np.ndarray, name: str = "The audio") -> np.ndarray:
    """Samples of any supported type as float32; integers are scaled to [-1, 1).

    Raises:
        AudioFormatError: a type whose scale is unknown.
    """
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if samples.dtype in (np.int16, np.int32):
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    if np.issubdtype(samples.dtype, np.floating):
        return samples.astype(np.float32, copy=False)
    raise AudioFormatError(
        f"{name} has samples of type {samples.dtype}, whose scale is unknown. Give floats in [-1, 1], or int16, int32 "
        "or uint8."
    )


def is_waveform(source: AudioSource) -> bool:
    """Whether ``source`` is samples without a sampling rate: an array, a tensor or a list of numbers."""
    if isinstance(source, (list, tuple)):
        return len(source) == 0 or isinstance(source[0], (int, float, np.number))
    return isinstance(source, (np.ndarray, torch.Tensor))


def _read(
    source: AudioSource, source_sampling_rate: int | None, max_seconds: float | None, timeout: float
) -> tuple[np.ndarray, int, str]:
    if isinstance(source, dict):
        given = [key for key in DICT_KEYS if source.get(key) is not None]
        if not given:
            raise AudioFormatError(
                f"The audio dict has the keys {sorted(map(str, source))}, but none of {list(DICT_KEYS)}. Add one."
            )
        rate = source_sampling_rate if source.get("sampling_rate") is None else source["sampling_rate"]
        return _read(source[given[0]], rate, max_seconds, timeout)
    if isinstance(source, (str, os.PathLike)):
        return _read_named(os.fspath(source), max_seconds, timeout)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _read_bytes(bytes(source), f"The audio file of {len(source)} bytes", max_seconds)
    if hasattr(source, "read"):
        name = f"The file object {getattr(source, 'name', type(source).__name__)!r}"
        data = source.read()
        if not isinstance(data, bytes):
            raise AudioFormatError(f"{name} is opened as text. Open it with mode 'rb'.")
        return _read_bytes(data, name, max_seconds)
    if isinstance(source, (np.ndarray, torch.Tensor, list, tuple)):
        return _read_array(source, source_sampling_rate)
    raise AudioFormatError(
        f"Audio of type {type(source).__name__} is not understood. Give a path, a URL, bytes, a binary file object, "
        f"an array with its sampling rate, or a dict with one of {list(DICT_KEYS)}."
    )


def _read_named(source: str, max_seconds: float | None, timeout: float) -> tuple[np.ndarray, int, str]:
    if source.startswith("data:"):
        head, _, payload = source.partition(",")
        if not head.endswith(";base64"):
            raise AudioFormatError(f"The data URL starts with {head[:60]!r}; only base64 data URLs are understood.")
        try:
            return _read_bytes(base64.b64decode(payload, validate=True), "The data URL", max_seconds)
        except binascii.Error as error:
            raise AudioFormatError(f"The data URL is not valid base64 ({error}). Encode it again.") from error
    if source.startswith(("http://", "https://")):
        request = urllib.request.Request(source, headers={"User-Agent": "freeze-omni-hf"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                data = answer.read()
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise AudioNotFoundError(
                f"{source} cannot be fetched ({error}). Check the address and the connection."
            ) from error
        return _read_bytes(data, source, max_seconds)
    if source.startswith("file://"):
        source = urllib.request.url2pathname(urllib.parse.urlparse(source).path)
    path = Path(source)
    if path.is_dir():
        raise AudioNotFoundError(f"{path} is a folder, not an audio file. Name a file in it.")
    if not path.exists():
        raise AudioNotFoundError(f"The audio file {path} does not exist. Check the path (looked from {Path.cwd()}).")
    return _decode(path, str(path), max_seconds)


def _read_bytes(data: bytes, name: str, max_seconds: float | None) -> tuple[np.ndarray, int, str]:
    if not data:
        raise AudioContentError(f"{name} is empty: it holds no bytes. Check how it was read or uploaded.")
    return _decode(io.BytesIO(data), name, max_seconds)


def _decode(file: Path | BinaryIO, name: str, max_seconds: float | None) -> tuple[np.ndarray, int, str]:
    if isinstance(file, Path) and file.stat().st_size == 0:
        raise AudioContentError(f"{name} is empty: it holds no bytes. Check how it was recorded or copied.")
    try:
        with soundfile.SoundFile(file) as sound:
            _check_length(sound.frames, sound.samplerate, max_seconds, name)
            return sound.read(dtype="float32", always_2d=True).mean(axis=1), sound.samplerate, name
    except (soundfile.SoundFileError, TypeError) as error:
        raise AudioFormatError(
            f"{name} cannot be read as audio ({error}). WAV, FLAC, OGG, MP3 and AIFF are understood; convert others, "
            "for example with `ffmpeg -i input.m4a output.wav`. Raw samples must be given as an array."
        ) from error


def _read_array(source: Any, rate: int | None) -> tuple[np.ndarray, int, str]:
    name = f"The {type(source).__name__} of samples"
    if rate is None:
        raise AudioRateError(
            f"{name} comes without its sampling rate. Give it: load_audio(array, source_sampling_rate=48000), or "
            '{"array": array, "sampling_rate": 48000}.'
        )
    _check_rate(rate, f"The sampling rate of {name[0].lower()}{name[1:]}")
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu()
        source = source.float().numpy() if source.is_floating_point() else source.numpy()
    try:
        array = np.asarray(source if len(source) else np.zeros(0, np.float32))
    except (TypeError, ValueError) as error:
        raise AudioFormatError(f"{name} is not an array of numbers ({error}).") from error
    return _to_mono(pcm_to_float(array, name), name), rate, name


def _to_mono(samples: np.ndarray, name: str) -> np.ndarray:
    """Mean over the channels; of two axes the shorter one is the channels (the first one if they are equal)."""
    if samples.ndim == 1:
        return samples
    if samples.ndim != 2:
        raise AudioFormatError(
            f"{name} has the shape {samples.shape}. Give (samples,), (channels, samples) or (samples, channels)."
        )
    if samples.size == 0:
        return samples.reshape(0)
    axis = 0 if samples.shape[0] <= samples.shape[1] else 1
    if samples.shape[axis] > MAX_CHANNELS:
        raise AudioFormatError(
            f"{name} has the shape {samples.shape}: {samples.shape[axis]} channels are more than {MAX_CHANNELS}. "
            "If this is a batch, give a list of one-dimensional arrays."
        )
    return samples.mean(axis=axis)


def _check_rate(rate: int, name: str) -> None:
    if not isinstance(rate, (int, float, np.number)) or not rate > 0:
        raise AudioRateError(f"{name} is {rate!r}; it must be a positive number of samples a second, such as 16000.")


def _check_length(count: int, rate: int, max_seconds: float | None, name: str) -> None:
    if max_seconds is not None and count > max_seconds * rate:
        raise AudioTooLongError(
            f"{name} lasts {count / rate:.1f} s, longer than the limit of {max_seconds:g} s. Cut it into shorter "
            "pieces, or raise max_seconds."
        )


def _to_rows(audio: Any) -> list[np.ndarray]:
    """One-dimensional float or int16 waveforms."""
    if isinstance(audio, (list, tuple)) and len(audio) > 0 and not is_waveform(audio):
        return [_to_row(item, f"Waveform {index}") for index, item in enumerate(audio)]
    if isinstance(audio, (np.ndarray, torch.Tensor)) and audio.ndim == 2:
        return [_to_row(item, f"Row {index}") for index, item in enumerate(audio)]
    return [_to_row(audio, "The waveform")]


def _to_row(audio: Any, name: str) -> np.ndarray:
    if audio is None:
        raise AudioFormatError(
            f"{name} is None: there is no sound to save. Was the answer made with generation_mode='text'?"
        )
    if isinstance(audio, torch.Tensor):
        audio = audio.detach().cpu()
        audio = audio.float().numpy() if audio.is_floating_point() else audio.numpy()
    row = np.asarray(audio, dtype=np.float32) if isinstance(audio, (list, tuple)) else np.asarray(audio)
    if row.ndim > 1 and row.size == max(row.shape):
        row = row.reshape(-1)
    if row.ndim != 1:
        raise AudioFormatError(f"{name} has the shape {row.shape}; a mono waveform of shape (samples,) is needed.")
    if row.dtype == np.int16:
        return row
    row = pcm_to_float(row, name)
    if not np.isfinite(row).all():
        raise AudioContentError(f"{name} holds NaN or infinite samples; nothing was written.")
    return np.clip(row, -1.0, 1.0)


def _write(path: Path, samples: np.ndarray, sampling_rate: int) -> Path:
    if not path.parent.is_dir():
        raise AudioNotFoundError(f"The folder {path.parent} does not exist. Create it first: mkdir -p {path.parent}")
    known = soundfile.available_formats()
    kind = path.suffix[1:].upper()
    if kind not in known:
        raise AudioFormatError(f"{path.name} does not end in a known audio format. Use .wav, .flac, .ogg or .mp3.")
    subtype = "PCM_16" if soundfile.check_format(kind, "PCM_16") else None
    soundfile.write(path, samples, sampling_rate, subtype=subtype, format=kind)
    return path


__all__ = [
    "AudioContentError",
    "AudioError",
    "AudioFormatError",
    "AudioNotFoundError",
    "AudioRateError",
    "AudioSource",
    "AudioTooLongError",
    "load_audio",
    "save_audio",
]
