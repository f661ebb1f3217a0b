# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""``freeze-omni eval``: what a checkpoint hears and how it answers, as one table, JSON and a plot.

Run as: freeze-omni eval checkpoints/freeze-omni-smollm2-135m --output outputs/eval
"""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm import tqdm

from ..embedded import embedded_checkpoint
from ..models import FreezeOmniForConditionalGeneration
from ..processing import FreezeOmniProcessor
from ..training.augmentation import add_noise, row_generator
from ..training.data import DataError, RowReport, decoded_rows, load_rows
from .hearing import answer_speech, answer_text, read_out, search, transcribe
from .metrics import answer_accuracy, contains_answer, error_rates


SUITE = Path(__file__).with_name("suite.yaml")


@dataclass
class SetResult:
    """Figures of one set, and what was heard or answered in each of its rows.

    Attributes:
        name: Of the set.
        task: "asr" or "qa".
        figures: For "asr" ``wer`` and ``cer`` by way of transcription; for "qa" ``spoken`` and ``text`` accuracy and
            their ``ratio``, and error rates of the questions by way of transcription.
        rows: One mapping a row.
        skipped: Rows that could not be read, by id.
    """

    name: str
    task: str
    figures: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def load_suite(file: str | Path | None = None, only: list[str] | None = None) -> dict[str, dict]:
    """The sets of a suite file, or those of them that ``only`` names.

    Raises:
        ValueError: no mapping of sets, or a name that it does not have.
    """
    suite = yaml.safe_load(Path(file or SUITE).read_text(encoding="utf-8"))
    if not isinstance(suite, dict) or not all(isinstance(spec, dict) for spec in suite.values()):
        raise ValueError(f"{file or SUITE} must map names to data sets.")
    unknown = sorted(set(only or ()) - set(suite))
    if unknown:
        raise ValueError(f"There is no set {', '.join(unknown)}; the suite has {', '.join(suite)}.")
    return {name: spec for name, spec in suite.items() if not only or name in only}


def evaluate_set(
    model: FreezeOmniForConditionalGeneration,
    processor: Any,
    name: str,
    spec: dict[str, Any],
    limit: int | None = None,
    ways: Sequence[str] | None = None,
    batch_size: int = 16,
    text_cache: dict[str, str] | None = None,
) -> SetResult:
    """Measures one set.

    Args:
        model: With its LLM attached.
        processor: Its processor.
        name: Of the set.
        spec: Fields of `DataSpec`, and ``noise_db``.
        limit: First rows only.
        ways: How transcripts are made: "search" (by what is heard and what the LLM expects), "read_out" (adapter
            alone, needs a gate), "transcribe" (through the LLM); None: as the model listens by its own settings.
        batch_size: Rows at a time.
        text_cache: Answers to text questions that are known, by question; new ones are added.

    Raises:
        DataError: the set is not there, or none of its rows can be read.
    """
    spec = dict(spec)
    noise_db = spec.pop("noise_db", None)
    if limit is not None:
        spec["limit"] = min(limit, spec.get("limit") or limit)
    rate, report = processor.feature_extractor.sampling_rate, RowReport()
    pairs = list(decoded_rows(load_rows(spec), report, sampling_rate=rate))
    if not pairs:
        raise DataError(f"No row of {name} can be read.\n{report}")
    rows, waves = [row for row, _ in pairs], [wave for _, wave in pairs]
    if noise_db is not None:
        kinds = ("white", "pink", "babble")
        waves = [_noisy(wave, waves, float(noise_db), kinds[index % 3], index) for index, wave in enumerate(waves)]
    result = SetResult(name, spec.get("task", "asr"), skipped=report.skipped)
    measure = _measure_questions if result.task == "qa" else _measure_transcripts
    measure(result, model, processor, rows, waves, ways, batch_size, {} if text_cache is None else text_cache)
    return result


def _noisy(wave: np.ndarray, others: list[np.ndarray], snr_db: float, kind: str, index: int) -> np.ndarray:
    voices = [others[(index + step) % len(others)] for step in range(1, 5)] if len(others) > 1 else None
    if voices is None and kind == "babble":
        kind = "pink"
    return add_noise(wave, snr_db, kind, row_generator(0, 0, index), voices)


def _usual_ways(model: FreezeOmniForConditionalGeneration) -> list[str]:
    if model.adapter.gate is None:
        return ["transcribe"]
    return ["search", "read_out"] if getattr(model.generation_config, "hearing_beams", 1) > 1 else ["read_out"]


def _measure_transcripts(result, model, processor, rows, waves, ways, batch_size, text_cache) -> None:
    texts = [row["text"] for row in rows]
    result.rows = [{"id": row["id"], "speaker": row["speaker"], "text": row["text"]} for row in rows]
    for way in ways or _usual_ways(model):
        make = {"search": search, "read_out": read_out, "transcribe": transcribe}[way]
        with tqdm(total=len(waves), desc=f"{result.name} {way}", unit="row") as bar:
            heard = make(model, processor, waves, batch_size, progress=bar.update)
        rates = error_rates(heard, texts, rows[0].get("language") or "en")
        result.figures[way] = {name: round(rates[name], 4) for name in ("wer", "cer")}
        for row, text in zip(result.rows, heard, strict=True):
            row[way] = text


def _measure_questions(result, model, processor, rows, waves, ways, batch_size, text_cache) -> None:
    questions = [row["text"] for row in rows]
    unknown = sorted({question for question in questions if question not in text_cache})
    with tqdm(total=len(unknown) + len(waves), desc=result.name, unit="answer") as bar:
        answers = answer_text(model, processor, unknown, batch_size, progress=bar.update)
        text_cache.update(zip(unknown, answers, strict=True))
        spoken, found = answer_speech(model, processor, waves, batch_size, progress=bar.update)
    written = [text_cache[question] for question in questions]
    accepted = [list(row["answers"]) for row in rows]
    figures = answer_accuracy(spoken, accepted, written)
    result.figures = {way: None if value is None else round(value, 4) for way, value in figures.items()}
    heard = [None] * len(rows)
    transcripts = {} if found is None else {"search": found}
    if model.adapter.gate is not None:
        transcripts["read_out"] = read_out(model, processor, waves, batch_size)
    for way, texts in reversed(transcripts.items()):
        heard, rates = texts, error_rates(texts, questions, rows[0].get("language") or "en")
        result.figures[way] = {name: round(rates[name], 4) for name in ("wer", "cer")}
    for row, transcript, good, answer, read in zip(rows, heard, accepted, spoken, written, strict=True):
        result.rows.append(
            {
                "id": row["id"],
                "speaker": row["speaker"],
                "question": row["text"],
                "accepted": good,
                "heard": transcript,
                "spoken_answer": answer,
                "spoken_right": contains_answer(answer, good),
                "text_answer": read,
                "text_right": contains_answer(read, good),
            }
        )


def table(results: list[SetResult]) -> str:
    """All figures as one Markdown table."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    lines = [
        "| set | rows | WER % | WER read out % | WER through LLM % | spoken accuracy % | text accuracy % | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        figures = result.figures
        wer = [percent(figures.get(way, {}).get("wer")) for way in ("search", "read_out", "transcribe")]
        right = [percent(figures.get(way)) for way in ("spoken", "text")]
        ratio = "-" if figures.get("ratio") is None else f"{figures['ratio']:.2f}"
        lines.append(f"| {result.name} | {len(result.rows)} | {' | '.join([*wer, *right, ratio])} |")
    return "\n".join(lines)


def plot(results: list[SetResult], file: str | Path) -> None:
    """Bars of error rates and of accuracies, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), constrained_layout=True)
    panels = (
        ("asr", ("search", "read_out", "transcribe"), "word error rate, %", lambda f, w: f.get(w, {}).get("wer")),
        ("qa", ("spoken", "text"), "answers that are right, %", lambda f, w: f.get(w)),
    )
    for axis, (task, ways, title, value) in zip(axes, panels, strict=True):
        chosen = [result for result in results if result.task == task]
        ways = [way for way in ways if any(value(result.figures, way) is not None for result in chosen)]
        for place, way in enumerate(ways):
            heights = [100 * (value(result.figures, way) or 0.0) for result in chosen]
            width = 0.8 / len(ways)
            bars = axis.bar(
                [i + width * place for i in range(len(chosen))], heights, width, label=way.replace("_", " ")
            )
            axis.bar_label(bars, fmt="%.0f", fontsize=8)
        axis.set_xticks([i + 0.3 for i in range(len(chosen))], [r.name for r in chosen], rotation=20, ha="right")
        axis.set_title(title)
        if chosen:
            axis.legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def save_results(results: list[SetResult], folder: str | Path, checkpoint: str) -> None:
    """Writes figures.json, rows.jsonl, table.md and figures.png."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = {result.name: {"rows": len(result.rows), **result.figures} for result in results}
    skipped = {result.name: result.skipped for result in results if result.skipped}
    content = {"checkpoint": checkpoint, "sets": figures, "skipped": skipped}
    (folder / "figures.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as out:
        for result in results:
            out.writelines(json.dumps({"set": result.name, **row}, ensure_ascii=False) + "\n" for row in result.rows)
    (folder / "table.md").write_text(table(results) + "\n", encoding="utf-8")
    plot(results, folder / "figures.png")


def run(args: Namespace) -> int:
    """Measure ``args.checkpoint`` (see the command's help)."""
    folder = args.checkpoint or embedded_checkpoint()
    suite = load_suite(args.suite, args.only)
    model = FreezeOmniForConditionalGeneration.from_pretrained(
        folder, language_model=args.llm, dtype=None if args.dtype == "auto" else getattr(torch, args.dtype)
    )
    model.to(args.device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    processor = FreezeOmniProcessor.from_pretrained(folder)
    results, missing, text_cache = [], [], {}
    for name, spec in suite.items():
        try:
            results.append(
                evaluate_set(model, processor, name, spec, args.limit, args.ways, args.batch_size, text_cache)
            )
        except DataError as error:
            missing.append(f"{name}: {error}")
    for line in missing:
        print(f"left out: {line}", file=sys.stderr)
    if not results:
        print("error: no set of the suite is there; `python training/prepare_data.py` makes them.", file=sys.stderr)
        return 1
    print(table(results))
    if args.output:
        save_results(results, args.output, str(folder))
        print(f"Written to {args.output}.")
    return 0


__all__ = ["SetResult", "evaluate_set", "load_suite", "plot", "run", "save_results", "table"]
