# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Shards: Parquet files with encoded audio, each made whole or not at all, and the reports beside them.

A shard appears under its name once it is complete, and its report before it. What stops a job therefore costs at most
the shards in the making.
"""

import errno
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from ..embedded import SYSTEM_PROMPT
from ..processing import AudioError, load_audio
from .plan import Shard, Utterance
from .voices import VoiceError, VoiceMissingError, Voices, check_speech


SAMPLING_RATE = 16000
SPEECH_RATE = 24000
"""Of what is to be spoken: the codec's."""


class ShardError(OSError):
    """A shard that cannot be written. What was finished before it is kept."""


def encode_flac(samples: np.ndarray, sampling_rate: int = SAMPLING_RATE) -> bytes:
    """(samples,) floats in [-1, 1] as the bytes of a 16-bit mono FLAC file."""
    file = io.BytesIO()
    pcm = np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
    soundfile.write(file, pcm, sampling_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def features(task: str):
    """The columns of a task as `datasets.Features`; audio is never decoded by `datasets` itself."""
    from datasets import Audio, Features, Value

    columns = {
        "id": Value("string"),
        "audio": Audio(sampling_rate=rate_of(task), decode=False),
        "text": Value("string"),
        "language": Value("string"),
        "speaker": Value("string"),
        "duration": Value("float32"),
    }
    if task in ("qa", "speech"):
        content = [{"type": Value("string"), "text": Value("string")}]
        columns["messages"] = [{"role": Value("string"), "content": content}]
        columns["answers"] = [Value("string")]
        columns["finished"] = Value("bool")
    return Features(columns)


def rate_of(task: str) -> int:
    """Samples per second of a task's audio."""
    return SPEECH_RATE if task == "speech" else SAMPLING_RATE


def make_row(
    utterance: Utterance, voices: Voices, answer: dict | None = None, rate: int = SAMPLING_RATE
) -> dict[str, Any]:
    """One row of the contract: spoken or read.

    Args:
        utterance: What is said by whom.
        voices: Who speaks.
        answer: For a question ``{"answer", "finished"}``, the LLM's own.
        rate: Samples per second.

    Raises:
        VoiceError, AudioError: the row cannot be made.
    """
    text = answer["answer"] if utterance.answered else utterance.text
    if utterance.file is not None:
        samples = load_audio(utterance.file, rate)
    else:
        samples, own = voices.speak(text, utterance.speaker, utterance.speed, utterance.pitch)
        check_speech(samples, own, text)
        if own != rate:
            samples = soxr.resample(samples, own, rate)
    row = {
        "id": utterance.id,
        "audio": {"bytes": encode_flac(samples, rate), "path": f"{utterance.id}.flac"},
        "text": text,
        "language": "en",
        "speaker": utterance.speaker,
        "duration": len(samples) / rate,
    }
    if answer is not None:
        question = {"type": "text", "text": utterance.text} if utterance.answered else {"type": "audio", "text": None}
        row["messages"] = [
            {"role": "system", "content": [{"type": "text", "text": SYSTEM_PROMPT}]},
            {"role": "user", "content": [question]},
            {"role": "assistant", "content": [{"type": "text", "text": answer["answer"]}]},
        ]
        row["answers"] = list(utterance.answers)
        row["finished"] = answer["finished"]
    return row


def shard_file(root: Path, shard: Shard) -> Path:
    """Where a shard lies."""
    return Path(root) / f"{shard.key}.parquet"


def report_file(root: Path, shard: Shard) -> Path:
    """Where its report lies."""
    return Path(root) / "reports" / f"{shard.key.replace('/', '-')}.json"


def shard_state(root: Path, shard: Shard) -> str:
    """ "missing", "done", or "other" where a file of another recipe stands in its place."""
    if not shard_file(root, shard).is_file():
        return "missing"
    try:
        report = json.loads(report_file(root, shard).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "other"
    return "done" if report.get("fingerprint") == shard.fingerprint else "other"


def make_shard(
    root: str | Path,
    shard: Shard,
    voices: Voices | None = None,
    answers: dict[str, dict] | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Makes a shard and its report. Rows that fail are left out and listed in the report; they do not end the job.

    A shard that is there by now, made by another process, is left as it is.

    Args:
        root: Folder of the data.
        shard: The plan.
        voices: Who speaks; None: opened and closed here.
        answers: For questions, the LLM's answer by question.
        progress: Called with 1 after each row.

    Returns:
        The report: key, fingerprint, split, rows, hours by speaker, errors [{id, error}].

    Raises:
        VoiceMissingError: a voice is not installed.
        ShardError: the disk is full or the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if shard_state(Path(root), shard) == "done":
        progress(len(shard.rows))
        return json.loads(report_file(Path(root), shard).read_text(encoding="utf-8"))
    own = voices is None
    voices = voices or Voices()
    rows, errors, seconds = [], [], {}
    try:
        for utterance in shard.rows:
            try:
                answer = None
                if shard.task == "qa" or utterance.answered:
                    answer = (answers or {}).get(utterance.text)
                    if answer is None:
                        raise VoiceError(f"There is no answer of the LLM to {utterance.text!r}.")
                rows.append(_make_row_or_again(utterance, voices, answer, rate_of(shard.task)))
                seconds[utterance.speaker] = seconds.get(utterance.speaker, 0.0) + rows[-1]["duration"]
            except VoiceMissingError:
                raise
            except (VoiceError, AudioError, soundfile.SoundFileError) as error:
                errors.append({"id": utterance.id, "error": str(error)})
            progress(1)
    finally:
        if own:
            voices.close()
    report = {
        "key": shard.key,
        "fingerprint": shard.fingerprint,
        "task": shard.task,
        "split": shard.split,
        "rows": len(rows),
        "hours": {speaker: value / 3600 for speaker, value in sorted(seconds.items())},
        "errors": errors,
    }
    file = shard_file(root, shard)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(rows, schema=features(shard.task).arrow_schema)
        pq.write_table(table, partial, compression="none", row_group_size=100)
        write_json(report_file(root, shard), report)
        partial.replace(file)
    except OSError as error:
        raise _explained(error, file.parent) from error
    finally:
        partial.unlink(missing_ok=True)
    return report


def _make_row_or_again(utterance: Utterance, voices: Voices, answer: dict | None, rate: int) -> dict[str, Any]:
    """A second try: a program may have run out of time because the machine was paused or overloaded."""
    try:
        return make_row(utterance, voices, answer, rate)
    except VoiceMissingError:
        raise
    except VoiceError:
        return make_row(utterance, voices, answer, rate)


def write_json(file: Path, content: Any) -> None:
    """Writes JSON whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _explained(error: OSError, folder: Path) -> ShardError:
    kept = "Everything finished before is kept; run the same command again to go on."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ShardError(error.errno, f"The disk of {folder} is full. Free some space. {kept}")
    return ShardError(error.errno, f"{folder} cannot be written: {error.strerror or error}. {kept}")


def check_space(root: Path, rows: int, bytes_a_row: int = 70_000) -> None:
    """Refuses to start where ``rows`` more rows will not fit.

    Raises:
        ShardError: says how much is needed.
    """
    root.mkdir(parents=True, exist_ok=True)
    needed, free = rows * bytes_a_row, shutil.disk_usage(root).free
    if free < needed:
        raise ShardError(
            errno.ENOSPC,
            f"{root} has {free / 1e9:.1f} GB free, but {rows} rows need about {needed / 1e9:.1f} GB. Free some space, "
            "or give another folder with --output.",
        )


def summarise(root: str | Path) -> dict[str, Any]:
    """Adds up the reports of all finished shards.

    Returns:
        {"sets": {"asr/train": {"rows", "hours", "speakers": {speaker: hours}}}, "errors": [{id, error}]}.
    """
    sets: dict[str, dict] = {}
    errors = []
    for file in sorted((Path(root) / "reports").glob("*.json")):
        report = json.loads(file.read_text(encoding="utf-8"))
        if not (Path(root) / f"{report['key']}.parquet").is_file():
            continue
        total = sets.setdefault(f"{report['task']}/{report['split']}", {"rows": 0, "hours": 0.0, "speakers": {}})
        total["rows"] += report["rows"]
        for speaker, hours in report["hours"].items():
            total["hours"] += hours
            total["speakers"][speaker] = total["speakers"].get(speaker, 0.0) + hours
        errors += report["errors"]
    return {"sets": dict(sorted(sets.items())), "errors": errors}


def summary_table(summary: dict[str, Any]) -> str:
    """The summary as a Markdown table: rows and hours of every set and voice."""
    lines = ["| set | voice | rows | hours |", "|---|---|---|---|"]
    for name, total in summary["sets"].items():
        lines.append(f"| {name} | all {len(total['speakers'])} | {total['rows']} | {total['hours']:.2f} |")
        lines += [f"| | {speaker} | | {hours:.2f} |" for speaker, hours in sorted(total["speakers"].items())]
    return "\n".join(lines)


__all__ = [
    "SAMPLING_RATE",
    "SPEECH_RATE",
    "ShardError",
    "check_space",
    "encode_flac",
    "features",
    "make_row",
    "make_shard",
    "rate_of",
    "report_file",
    "shard_file",
    "shard_state",
    "summarise",
    "summary_table",
    "write_json",
]
