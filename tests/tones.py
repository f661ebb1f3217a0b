# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Data whose sound spells its text: a tone a letter."""

from pathlib import Path

import numpy as np

from freeze_omni_hf.training.shards import encode_flac, features


WORDS = ("one", "two", "three", "nine", "oh")


def sound(text: str) -> np.ndarray:
    """Every letter is a tone of 160 ms."""
    clock = np.arange(2560) / 16000
    return np.concatenate([0.3 * np.sin(2 * np.pi * (200 + 60 * (ord(c) - 96)) * clock) for c in text])


def row(index: int) -> dict:
    text = WORDS[index % len(WORDS)]
    wave = sound(text)
    answer = [{"type": "text", "text": text[::-1]}]
    return {
        "id": f"row-{index}",
        "audio": {"bytes": encode_flac(wave), "path": None},
        "text": text,
        "language": "en",
        "speaker": "tones",
        "duration": len(wave) / 16000,
        "messages": [
            {"role": "user", "content": [{"type": "audio", "text": None}]},
            {"role": "assistant", "content": answer},
        ],
        "answers": [text[::-1]],
        "finished": True,
    }


def write_data(folder: Path, count: int = 20, name: str = "train-00000") -> None:
    """Questions and answers, which serve for recognition too, as one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([row(index) for index in range(count)], schema=features("qa").arrow_schema)
    pq.write_table(table, folder / f"{name}.parquet")
