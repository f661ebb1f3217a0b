# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Any data set under one set of column names, and its rows as samples.

A data set is named in a recipe's YAML by where it lies and by a column map; see ``training/data/specs.yaml``. Audio
stays encoded until a row is needed, and a row that cannot be used is counted and left out, never the end of a run.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..embedded import SYSTEM_PROMPT
from ..llm_store import cache_dir
from ..processing import AudioError, AudioTooLongError, load_audio


if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

# What a row of each task must have, and what it may have. An answer as text may stand for the messages.
REQUIRED = {
    "asr": ("audio", "text"),
    "tts": ("audio", "text"),
    "qa": ("audio", "messages"),
    "duplex": ("audio", "segments"),
    "speech": ("speech_tokens", "text"),
}
OPTIONAL = {
    "asr": ("id", "language", "speaker", "duration", "speech_tokens"),
    "tts": ("id", "language", "speaker", "duration", "speech_tokens"),
    "qa": ("id", "text", "language", "speaker", "duration", "answers", "finished", "speech_tokens"),
    "duplex": ("id", "text", "language", "speaker", "duration"),
    "speech": ("id", "messages", "language", "speaker", "duration", "finished", "spoken", "letter_times"),
}
FILLED = {"language": "", "speaker": ""}
"""Optional columns that every data set has in the end, with what stands in them where nothing is known."""
TEXT_TYPES = ("string", "large_string")


class DataError(ValueError):
    """Data that cannot be loaded. The message names the place and the cure."""


class ColumnError(DataError):
    """A column map that does not fit the data. The message names the columns that are there."""


@dataclass
class DataSpec:
    """Where a data set lies and what its columns mean.

    Attributes:
        path: Hub id; or a local folder (of Parquet files, of ``save_to_disk``, of audio with ``metadata.csv``, of a
            speech corpus) or file (Parquet, JSON lines, CSV). ``{cache}`` stands for this package's cache.
        task: "asr", "tts", "qa", "duplex" or "speech" (tokens of a codec instead of sound): which columns are needed.
        name: Configuration of a Hub data set.
        split: Split of a Hub data set; in a local folder the first part of the files' names.
        columns: {our name: name in the data}; columns with our names need no entry.
        constants: Columns with one value throughout, for example {"language": "zh"}.
        limit: First rows only.
        repeat: How often every row is taken; 2 for rows that are to be seen twice as often as those of other sets.
        streaming: Read while training, without a copy on disk.
        revision: Of a Hub data set.
        files: Glob of the data files in ``path``, where ``split`` does not find them.
        audio_files: Glob of the audio files of a speech corpus.
        transcripts: Glob of its transcripts; each line is the name of an audio file without ending, and its text.
        speaker_folder: How many folders above an audio file its speaker's folder is (1: the file's own).
        case: "lower" for texts all in capitals; "keep".
        join_words: Take the spaces out of texts, as in Chinese.
        system_prompt: System turn of questions that come with an answer instead of messages.
    """

    path: str
    task: str = "asr"
    name: str | None = None
    split: str = "train"
    columns: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    repeat: int = 1
    streaming: bool = False
    revision: str | None = None
    files: str | None = None
    audio_files: str | None = None
    transcripts: str | None = None
    speaker_folder: int = 1
    case: str = "keep"
    join_words: bool = False
    system_prompt: str | None = SYSTEM_PROMPT

    @classmethod
    def from_dict(cls, settings: "dict[str, Any] | DataSpec") -> "DataSpec":
        """From a recipe's mapping.

        Raises:
            DataError: no path, an unknown setting or task.
        """
        if isinstance(settings, cls):
            return settings
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown or not settings.get("path"):
            wrong = f"no setting {', '.join(unknown)}" if unknown else "no path"
            raise DataError(f"The data set {dict(settings)} has {wrong}; settings are {', '.join(sorted(known))}.")
        spec = cls(**settings)
        if spec.task not in REQUIRED:
            raise DataError(f"The task {spec.task!r} is not known; known are {', '.join(REQUIRED)}.")
        if spec.repeat < 1 or (spec.streaming and spec.repeat > 1):
            raise DataError(f"repeat is {spec.repeat}; it must be 1 or more, and 1 for a stream.")
        if spec.case not in ("keep", "lower"):
            raise DataError(f"case is {spec.case!r}; it must be 'keep' or 'lower'.")
        return spec

    @property
    def place(self) -> Path:
        """``path`` as a local path."""
        return Path(self.path.replace("{cache}", str(cache_dir()))).expanduser()

    @property
    def is_local(self) -> bool:
        """Whether ``path`` means the disk rather than the Hub."""
        return self.place.exists() or self.path.startswith(("/", ".", "~", "{cache}")) or self.path.count("/") > 1


def load_rows(spec: dict[str, Any] | DataSpec | list) -> "Dataset | IterableDataset":
    """Loads one data set, or several one after the other, with our column names and encoded audio.

    Args:
        spec: A `DataSpec`, a mapping with its fields, or a list of these.

    Returns:
        A `datasets.Dataset` (or `IterableDataset` with ``streaming``). Every row has ``id``, ``audio`` ({bytes, path},
        never decoded by `datasets`), ``language``, ``speaker``, and what the task needs.

    Raises:
        DataError: the data is not there or cannot be read.
        ColumnError: the column map names a column that is not there, or leaves out one that is needed.
    """
    from datasets import concatenate_datasets

    if isinstance(spec, (list, tuple)):
        if not spec:
            raise DataError("No data set is given.")
        parts = [load_rows(item) for item in spec]
        shared = [name for name in parts[0].column_names if all(name in part.column_names for part in parts)]
        return concatenate_datasets([part.select_columns(shared) for part in parts])
    spec = DataSpec.from_dict(spec)
    rows = _with_contract(_open(spec), spec)
    if spec.repeat == 1:
        return rows
    return concatenate_datasets([rows, *(_another_copy(rows, turn) for turn in range(2, spec.repeat + 1))])


def _another_copy(rows: "Dataset", turn: int) -> "Dataset":
    """The same rows under ids of their own, so that they are augmented in another way."""
    ids = [f"{row_id}#{turn}" for row_id in rows["id"]]
    return rows.remove_columns("id").add_column("id", ids)


# Where rows come from ---------------------------------------------------------------------------------------------


def _open(spec: DataSpec) -> "Dataset | IterableDataset":
    if spec.audio_files or spec.transcripts:
        return _open_corpus(spec)
    return _open_local(spec) if spec.is_local else _open_hub(spec)


def _open_hub(spec: DataSpec) -> "Dataset | IterableDataset":
    from datasets import load_dataset

    try:
        return load_dataset(spec.path, spec.name, split=spec.split, streaming=spec.streaming, revision=spec.revision)
    except Exception as error:  # the loader raises a dozen kinds for a missing set, split, network or permission
        raise DataError(
            f"The data set {spec.path} (configuration {spec.name}, split {spec.split}) cannot be loaded: "
            f"{type(error).__name__}: {error}. Is it the id of a Hub data set or an existing "
            "folder, and is the network up?"
        ) from error


def _open_local(spec: DataSpec) -> "Dataset | IterableDataset":
    from datasets import DatasetDict, load_from_disk

    place = spec.place
    if not place.exists():
        raise DataError(f"{place} does not exist. Give a folder, a file or the id of a Hub data set as path.")
    if place.is_file():
        return _open_files([place], spec)
    if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
        loaded = load_from_disk(str(place))
        if isinstance(loaded, DatasetDict):
            if spec.split not in loaded:
                raise DataError(f"{place} has no split {spec.split!r}; it has {', '.join(loaded)}.")
            loaded = loaded[spec.split]
        return loaded.to_iterable_dataset() if spec.streaming else loaded
    for pattern in [spec.files] if spec.files else _patterns(spec.split):
        files = sorted(file for file in place.glob(pattern) if not file.name.startswith("."))
        if files:
            return _open_files(files, spec)
    for name in ("metadata.jsonl", "metadata.csv"):
        # The layout of `audiofolder`, whose own loader needs torchcodec even for paths.
        if not spec.files and (place / name).is_file():
            return _open_files([place / name], spec)
    there = sorted(file.name for file in place.iterdir())[:8]
    raise DataError(
        f"{place} has no data of the split {spec.split!r}: nothing is called "
        f"{spec.files or _patterns(spec.split)[0]}. There are: {', '.join(there) or 'no files at all'}."
    )


def _patterns(split: str) -> list[str]:
    endings = ("parquet", "jsonl", "csv", "tsv")
    bare = [f"{folder}{split}{rest}.{ending}" for ending in endings for folder in ("", "data/") for rest in ("-*", "")]
    return [*bare, f"{split}/*.parquet"]


def _open_files(files: list[Path], spec: DataSpec) -> "Dataset | IterableDataset":
    from datasets import load_dataset

    ending = files[0].suffix
    kinds = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}
    if ending not in kinds:
        raise DataError(f"{files[0]} is none of {', '.join(kinds)}.")
    if ending == ".parquet":
        _check_parquet(files)
    extra = {"sep": "\t"} if ending == ".tsv" else {}
    names = [str(file) for file in files]
    try:
        rows = load_dataset(kinds[ending], data_files=names, split="train", streaming=spec.streaming, **extra)
    except Exception as error:  # a broken line is reported by whichever reader met it
        cause = error.__cause__ or error
        raise DataError(f"{files[0].parent} cannot be read: {type(cause).__name__}: {cause}") from error
    audio = spec.columns.get("audio", "audio")
    if rows.features and audio not in rows.features and "file_name" in rows.features:
        rows = rows.rename_column("file_name", audio)
    if rows.features and getattr(rows.features.get(audio), "dtype", "") in TEXT_TYPES:
        folder = files[0].parent
        rows = rows.map(lambda row: {audio: str(folder / row[audio]) if row[audio] else row[audio]})
    return rows


def _check_parquet(files: list[Path]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in files:
        try:
            pq.read_metadata(file)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file} is damaged ({error}). Remove it and make or fetch it again.") from error


def _open_corpus(spec: DataSpec) -> "Dataset":
    from datasets import Dataset

    place = spec.place
    if not spec.audio_files or not spec.transcripts:
        raise DataError(f"A speech corpus needs `audio_files` and `transcripts`; {spec.path} has only one of them.")
    texts = {}
    for file in sorted(place.glob(spec.transcripts)):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, _, text = line.strip().partition(" ")
            texts[name] = text.strip()
    audio, level = sorted(place.glob(spec.audio_files)), spec.speaker_folder - 1
    if not texts or not audio:
        lacking = f"transcripts {spec.transcripts}" if not texts else f"audio files {spec.audio_files}"
        raise DataError(f"{place} has no {lacking}.")
    rows = [
        {"id": file.stem, "audio": str(file), "text": texts[file.stem], "speaker": file.parents[level].name}
        for file in audio
        if file.stem in texts
    ]
    if not rows:
        raise DataError(
            f"No transcript in {place} belongs to an audio file; the first of each are "
            f"{next(iter(texts))!r} and {audio[0]}."
        )
    return Dataset.from_list(rows)


# Our columns ------------------------------------------------------------------------------------------------------


def _with_contract(rows: "Dataset | IterableDataset", spec: DataSpec) -> "Dataset | IterableDataset":
    from datasets import Value

    if rows.features is None:  # a stream whose columns are only known from its first row
        rows = rows._resolve_features()
    columns = _column_map(rows, spec)
    if spec.limit is not None:
        rows = rows.take(spec.limit) if spec.streaming else rows.select(range(min(spec.limit, len(rows))))
    # Audio first: in a stream every later step would decode it.
    rows = rows.select_columns(list(columns.values()))
    if "audio" in columns:
        rows = _keep_encoded(rows, columns["audio"], spec.streaming)
    rows = rows.rename_columns({source: name for name, source in columns.items() if source != name})
    for name in ("id", "text", "language", "speaker"):
        if name in columns and rows.features[name] != Value("string"):
            rows = rows.cast_column(name, Value("string"))
    return _rewrite(_fill_in(rows, spec), spec)


def _keep_encoded(rows: "Dataset | IterableDataset", column: str, streaming: bool) -> "Dataset | IterableDataset":
    """The column as {bytes, path}, whatever it was: `datasets.Audio`, paths, bytes; arrays stay as they are.

    In a stream the type Audio itself is avoided: there `datasets` encodes after every step, which needs torchcodec.
    """
    from datasets import Audio, Features, Value

    feature = rows.features[column]
    kind = getattr(feature, "dtype", "")
    field = {"string": "path", "binary": "bytes"}.get(kind.removeprefix("large_"))
    plain = {"bytes": Value("binary"), "path": Value("string")}
    if streaming and field:
        return rows.map(
            lambda row: {column: {"bytes": None, "path": None, field: row[column]}},
            features=Features({**rows.features, column: plain}),
        )
    if streaming:
        return rows.cast_column(column, plain) if isinstance(feature, Audio) else rows
    if kind.startswith("large_"):
        rows = rows.cast_column(column, Value(kind.removeprefix("large_")))
    encoded = isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    return rows.cast_column(column, Audio(decode=False)) if encoded or field or isinstance(feature, Audio) else rows


def _column_map(rows: "Dataset | IterableDataset", spec: DataSpec) -> dict[str, str]:
    """{our name: name in the data} of all columns that are kept."""
    there = rows.column_names
    required, known = REQUIRED[spec.task], {*REQUIRED[spec.task], *OPTIONAL[spec.task]}
    if spec.task == "qa":
        known.add("answer")
        if "answer" in spec.columns or ("messages" not in there and "answer" in there):
            required = tuple("answer" if name == "messages" else name for name in required)
    listing = f"It has the columns {', '.join(sorted(there))}."
    unknown = sorted(set(spec.columns) - known)
    if unknown:
        raise ColumnError(
            f"The column map of {spec.path} gives {', '.join(unknown)}, which {spec.task} does not use; it uses "
            f"{', '.join(sorted(known))}. The map reads {{our name: name in the data}}."
        )
    absent = sorted(source for source in spec.columns.values() if source not in there)
    if absent:
        raise ColumnError(f"{spec.path} has no column {', '.join(map(repr, absent))}, which its map names. {listing}")
    needed = [name for name in required if spec.columns.get(name, name) not in there and name not in spec.constants]
    if needed:
        example = ", ".join(f"{name}: NAME" for name in needed)
        raise ColumnError(
            f"{spec.path} has no column {', '.join(map(repr, needed))}, which {spec.task} needs. {listing} "
            f"Say which it is: columns: {{{example}}}."
        )
    columns = {name: spec.columns.get(name, name) for name in known if name not in spec.constants}
    columns = {name: source for name, source in columns.items() if source in there}
    if "answer" in columns and "answer" not in required:
        del columns["answer"]
    twice = [source for source, count in Counter(columns.values()).items() if count > 1]
    for source in twice:
        names = sorted(name for name, other in columns.items() if other == source)
        mapped = [name for name in names if name in spec.columns]
        if len(mapped) > 1:
            raise ColumnError(f"The column map of {spec.path} gives {' and '.join(mapped)} the one column {source!r}.")
        for name in set(names) - set(mapped):  # it is called like ours and means something else
            del columns[name]
    return columns


def _fill_in(rows: "Dataset | IterableDataset", spec: DataSpec) -> "Dataset | IterableDataset":
    """Adds constants, and an id and empty language and speaker where there are none."""
    from datasets import Features, Value

    values = {name: value for name, value in {**FILLED, **spec.constants}.items() if name not in rows.column_names}
    needs_id = "id" not in rows.column_names
    stem = f"{Path(spec.path).name}/{spec.split}"
    if not spec.streaming:
        for name, value in values.items():
            rows = rows.add_column(name, [value] * len(rows))
        return rows.add_column("id", [f"{stem}/{index}" for index in range(len(rows))]) if needs_id else rows
    added = {name: Value("string" if isinstance(value, str) else "float32") for name, value in values.items()}
    features = Features({**rows.features, **added, **({"id": Value("string")} if needs_id else {})})
    return rows.map(
        lambda row, index: {**values, **({"id": f"{stem}/{index}"} if needs_id else {})},
        with_indices=True,
        features=features,
    )


def _rewrite(rows: "Dataset | IterableDataset", spec: DataSpec) -> "Dataset | IterableDataset":
    """Texts in lower case or without spaces, and an answer as messages."""
    from datasets import Features, Value

    if "text" in rows.column_names and (spec.case == "lower" or spec.join_words):
        options = {"lower": spec.case == "lower", "join": spec.join_words}
        rows = rows.map(_rewrite_text, fn_kwargs=options, features=rows.features)
    if "answer" in rows.column_names:
        content = [{"type": Value("string"), "text": Value("string")}]
        messages = {"messages": [{"role": Value("string"), "content": content}]}
        kept = {name: feature for name, feature in rows.features.items() if name != "answer"}
        rows = rows.map(
            _messages_from_answer,
            fn_kwargs={"system": spec.system_prompt},
            remove_columns=["answer"],
            features=Features({**kept, **messages}),
        )
    return rows


def _rewrite_text(row: dict[str, Any], lower: bool, join: bool) -> dict[str, str]:
    text = row["text"] or ""
    text = re.sub(r"\s+", "", text) if join else text
    return {"text": text.lower() if lower else text}


def _messages_from_answer(row: dict[str, Any], system: str | None) -> dict[str, list]:
    turns = [("system", system)] if system else []
    turns += [("user", None), ("assistant", row["answer"])]
    return {
        "messages": [
            {"role": role, "content": [{"type": "audio" if role == "user" else "text", "text": text}]}
            for role, text in turns
        ]
    }


# Rows as samples --------------------------------------------------------------------------------------------------


class RowReport:
    """Counts rows that were used and remembers those that were not, by id."""

    def __init__(self):
        self.used = 0
        self.skipped: dict[str, str] = {}

    def use(self) -> None:
        """Counts a row that was used."""
        self.used += 1

    def skip(self, row_id: str, reason: str) -> None:
        """Remembers a row that was not used; the same row in a later epoch counts once."""
        self.skipped[str(row_id)] = reason

    def merge(self, other: "RowReport") -> None:
        """Adds what another report (of another worker) holds."""
        self.used += other.used
        self.skipped.update(other.skipped)

    def __str__(self) -> str:
        if not self.skipped:
            return f"{self.used} rows, none skipped."
        shown = [f"  {row_id}: {reason}" for row_id, reason in list(self.skipped.items())[:20]]
        more = [f"  and {len(self.skipped) - 20} more"] if len(self.skipped) > 20 else []
        return "\n".join([f"{self.used} rows, {len(self.skipped)} skipped:", *shown, *more])


def decode_row(
    row: dict[str, Any],
    report: RowReport | None = None,
    sampling_rate: int = 16000,
    max_seconds: float | None = 30.0,
    min_seconds: float = 0.1,
) -> np.ndarray | None:
    """The samples of a row's audio.

    Args:
        row: A row of `load_rows`.
        report: Where a row that cannot be used is noted; without one it raises.
        sampling_rate: Wanted rate in Hz.
        max_seconds: Longest audio that is used.
        min_seconds: Shortest.

    Returns:
        (samples,) float32 array at ``sampling_rate``, or None for a row that is left out.

    Raises:
        DataError: without ``report``, a row whose audio is missing, unreadable, empty, too short or too long, or whose
            text is empty.
    """
    row_id = str(row.get("id", "(row without id)"))
    try:
        samples = _decode(row, sampling_rate, max_seconds, min_seconds)
    except DataError as error:
        if report is None:
            raise DataError(f"Row {row_id}: {error}") from error
        report.skip(row_id, str(error))
        return None
    if report is not None:
        report.use()
    return samples


def _decode(row: dict[str, Any], sampling_rate: int, max_seconds: float | None, min_seconds: float) -> np.ndarray:
    audio = row.get("audio")
    if not audio or (isinstance(audio, dict) and not any(value is not None for value in audio.values())):
        raise DataError("there is no audio")
    if "text" in row and "messages" not in row and "segments" not in row and not (row["text"] or "").strip():
        raise DataError("the text is empty")
    if isinstance(audio, dict) and audio.get("bytes"):
        audio = audio["bytes"]  # the path beside it may be of another machine
    try:
        samples = load_audio(audio, sampling_rate, max_seconds=max_seconds)
    except AudioTooLongError as error:
        raise DataError(f"the audio is longer than {max_seconds} s") from error
    except (AudioError, OSError) as error:
        raise DataError(str(error)) from error
    if len(samples) < min_seconds * sampling_rate:
        raise DataError(f"the audio has only {len(samples) / sampling_rate:.3f} s")
    return samples


def decoded_rows(
    rows: Iterable[dict[str, Any]], report: RowReport, **options: Any
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """All rows that can be used, each with its samples; the others are noted. Options are those of `decode_row`."""
    for row in rows:
        samples = decode_row(row, report, **options)
        if samples is not None:
            yield row, samples


__all__ = [
    "ColumnError",
    "DataError",
    "DataSpec",
    "RowReport",
    "decode_row",
    "decoded_rows",
    "load_rows",
]
