# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Speech recognisers of other people that judge what our voice can be understood to say."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from ..llm_store import cache_dir


RATE = 16000

Progress = Callable[[int], Any]


class JudgeError(RuntimeError):
    """A judge is not installed. The message says what to do."""


class WhisperJudge:
    """Whisper through faster-whisper, greedily, in English.

    Args:
        model: Folder of a CTranslate2 model, or a name that faster-whisper fetches ("base"). By default the one that
            ``training/fetch_whisper.py --judge`` put into the cache, else "base".
        threads: CPU threads; 0 for all.

    Raises:
        JudgeError: faster-whisper is not installed, or the model cannot be had.
    """

    name = "whisper-base"

    def __init__(self, model: str | Path | None = None, threads: int = 0):
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise JudgeError("Judging speech needs faster-whisper: pip install freeze-omni-hf[judge]") from error
        cached = cache_dir() / "whisper" / "base"
        model = model or (cached if (cached / "model.bin").is_file() else "base")
        try:
            self.model = WhisperModel(str(model), device="cpu", compute_type="int8", cpu_threads=threads)
        except Exception as error:  # the hub client raises a dozen kinds
            raise JudgeError(
                f"The judge {model} cannot be loaded: {error}. Run training/fetch_whisper.py --judge first."
            ) from error

    def __call__(self, samples: np.ndarray) -> str:
        """What is said in (samples,) at 16 kHz."""
        pieces, _ = self.model.transcribe(
            samples, language="en", beam_size=1, condition_on_previous_text=False, temperature=0.0
        )
        return " ".join(piece.text.strip() for piece in pieces)


class PocketsphinxJudge:
    """pocketsphinx: weaker, but of another family, so that a voice that pleases one judge alone is found out.

    Raises:
        JudgeError: pocketsphinx is not installed.
    """

    name = "pocketsphinx"

    def __init__(self):
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise JudgeError("This judge needs pocketsphinx: pip install freeze-omni-hf[judge]") from error
        self.decoder = Decoder(samprate=RATE, loglevel="FATAL")

    def __call__(self, samples: np.ndarray) -> str:
        """What is said in (samples,) at 16 kHz."""
        pcm = np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)
        self.decoder.start_utt()
        self.decoder.process_raw(pcm.tobytes(), full_utt=True)
        self.decoder.end_utt()
        found = self.decoder.hyp()
        return "" if found is None else found.hypstr


JUDGES = {judge.name: judge for judge in (WhisperJudge, PocketsphinxJudge)}


def transcripts(
    judge: Callable[[np.ndarray], str],
    waves: Sequence[np.ndarray],
    rate: int,
    progress: Progress = lambda count: None,
) -> list[str]:
    """What a judge hears in (samples,) arrays at ``rate``; nothing in what is shorter than a tenth of a second."""
    texts = []
    for wave in waves:
        if len(wave) < rate / 10:
            texts.append("")
        else:
            samples = np.asarray(wave, dtype=np.float32)
            texts.append(judge(samples if rate == RATE else soxr.resample(samples, rate, RATE)))
        progress(1)
    return texts


__all__ = ["JUDGES", "JudgeError", "PocketsphinxJudge", "WhisperJudge", "transcripts"]
