# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Between output stages 1 and 2: the speech tokens of all speech, once, so that the decoder trains on tokens alone.

Run as: python training/encode_speech.py --config training/recipes/smollm2-135m/codes.yaml      (resumes)
        ... --num_shards 4 --shard_index 0                                       (one of four nodes, one folder)

Writes `<output>/<set>-<index>.parquet` with speech_tokens in the place of audio. Any codec with one codebook that
`AutoModelForAudioTokenization` loads will do. Where the codec's folder holds the phonetic head of its training, a row
also says when each letter of its text is said (letter_times), which a decoder with letters is trained on.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm
from transformers import AutoModelForAudioTokenization
from trl import TrlParser

import freeze_omni_hf  # noqa: F401  (registers the codec)
from freeze_omni_hf.generation.segmentation import CLEANERS
from freeze_omni_hf.language_model import state_hash
from freeze_omni_hf.training.codec import load_phonetic_head
from freeze_omni_hf.training.data import DataError, RowReport, decode_row, load_rows
from freeze_omni_hf.training.speaking import LetterPlacer, encode_rows
from freeze_omni_hf.training.stages import in_cache


@dataclass
class Arguments:
    """What is encoded, by which codec, and where it goes."""

    codec: str = field(metadata={"help": "Codec: a folder or a Hub id."})
    output: str = field(metadata={"help": "Folder of the result."})
    sets: dict = field(default_factory=dict, metadata={"help": "Names (train-..., test-...) and specs (load_rows)."})
    cleaner: str | None = field(
        default="spoken",
        metadata={"help": "How texts are cleaned before their letters are placed (None: not at all)."},
    )
    rows_per_file: int = field(default=500, metadata={"help": "Rows of one file."})
    batch_size: int = field(default=16, metadata={"help": "Rows at a time."})
    max_seconds: float = field(default=20.0, metadata={"help": "Longer rows are left out."})
    num_shards: int = field(default=1, metadata={"help": "Number of nodes that share the work."})
    shard_index: int = field(default=0, metadata={"help": "Which of them this is, from 0."})
    device: str = field(default="cpu", metadata={"help": "Where the codec runs."})


def main() -> int:
    (arguments,) = TrlParser((Arguments,)).parse_args_and_config()
    codec = AutoModelForAudioTokenization.from_pretrained(in_cache(arguments.codec)).to(arguments.device).eval()
    mark, output, report = state_hash(codec)[:16], Path(in_cache(arguments.output)), RowReport()
    head = load_phonetic_head(in_cache(arguments.codec))
    place = (
        None if head is None else LetterPlacer(codec, head.to(arguments.device), CLEANERS.get(arguments.cleaner, str))
    )
    output.mkdir(parents=True, exist_ok=True)
    try:
        sets = {name: load_rows(spec) for name, spec in arguments.sets.items()}
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    jobs = [
        (output / f"{name}-{number:05d}.parquet", rows, range(start, min(start + arguments.rows_per_file, len(rows))))
        for name, rows in sets.items()
        for number, start in enumerate(range(0, len(rows), arguments.rows_per_file))
    ][arguments.shard_index :: arguments.num_shards]
    with tqdm(total=sum(len(places) for *_, places in jobs), unit="row") as bar:
        for file, rows, places in jobs:
            bar.set_description(file.stem)
            if not _is_made_by(file, mark):
                batches = (
                    [rows[place] for place in places[start : start + arguments.batch_size]]
                    for start in range(0, len(places), arguments.batch_size)
                )
                encoded = []
                for batch in batches:
                    pairs = [
                        (row, decode_row(row, report, codec.config.sampling_rate, arguments.max_seconds))
                        for row in batch
                    ]
                    encoded += encode_rows(codec, [pair for pair in pairs if pair[1] is not None], place)
                    bar.update(len(batch))
                _write(file, encoded, mark)
            else:
                bar.update(len(places))
    print(report)
    return 0


def _is_made_by(file: Path, mark: str) -> bool:
    """Whether a file is there and holds this codec's tokens."""
    if not file.is_file():
        return False
    return (pq.read_metadata(file).metadata or {}).get(b"codec") == mark.encode()


def _write(file: Path, rows: list[dict], mark: str) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        table = pa.Table.from_pylist(rows)
        tokens = table.column_names.index("speech_tokens") if rows else None
        if tokens is not None:
            kind = pa.list_(pa.int16())
            table = table.set_column(tokens, "speech_tokens", table["speech_tokens"].cast(kind))
        pq.write_table(table.replace_schema_metadata({"codec": mark}), partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
