# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""``freeze-omni judge``: how well a voice can be understood, by recognisers that never saw it.

Run as: freeze-omni judge checkpoints/freeze-omni-smollm2-135m --output outputs/judge
"""

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..embedded import embedded_checkpoint
from ..llm_store import cache_dir
from ..models import FreezeOmniCodec, FreezeOmniForConditionalGeneration
from ..processing import FreezeOmniProcessor
from ..training.codec import codebook_figures
from ..training.data import RowReport, decoded_rows, load_rows
from .judge import JUDGES, Progress, transcripts
from .metrics import error_rates


Judge = Callable[[np.ndarray], str]


@dataclass
class SpeechResult:
    """Figures of one way of speaking, and what was said and heard in each row.

    Attributes:
        name: Of the way.
        figures: ``wer`` by judge, and others.
        rows: One mapping a row.
    """

    name: str
    figures: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def _judged(result: SpeechResult, judges: dict[str, Judge], waves: list[np.ndarray], rate: int, texts: list[str]):
    counted = [place for place, text in enumerate(texts) if not goes_in_circles(text)] or range(len(texts))
    for name, judge in judges.items():
        heard = transcripts(judge, waves, rate)
        rates = error_rates([heard[place] for place in counted], [texts[place] for place in counted])
        result.figures[f"wer_{name}"] = round(rates["wer"], 4)
        for row, text in zip(result.rows, heard, strict=True):
            row[name] = text


def goes_in_circles(text: str) -> bool:
    """Whether three words in a row come four times: a small LLM sometimes does not find out of a phrase, and Whisper,
    once it has heard it, does not either and writes it for ever, however it is spoken."""
    words = text.lower().split()
    return max(Counter(zip(words, words[1:], words[2:], strict=False)).values(), default=0) >= 4


@torch.inference_mode()
def judge_codec(
    codec: Any,
    waves: Sequence[np.ndarray],
    texts: Sequence[str],
    judges: dict[str, Judge],
    progress: Progress = lambda count: None,
) -> list[SpeechResult]:
    """The voice itself, and what is left of it after the codec.

    Args:
        codec: The codec.
        waves: (samples,) at the codec's rate.
        texts: What is said in each.
        judges: By name.

    Returns:
        Two results, "voice" and "codec"; the second with the share of codes used and how much faster than real time
        encoding and decoding are.
    """
    rate, codes, made, spent = codec.config.sampling_rate, [], [], 0.0
    for wave in waves:
        start = perf_counter()
        tokens = codec.encode(torch.from_numpy(np.ascontiguousarray(wave))[None].to(codec.device)).audio_codes
        sound = codec.decode(tokens).audio_values[0]
        spent += perf_counter() - start
        codes.append(tokens[0].cpu())
        made.append(sound.float().cpu().numpy())
        progress(1)
    results = []
    for name, sounds in (("voice", list(waves)), ("codec", made)):
        result = SpeechResult(name, rows=[{"text": text} for text in texts])
        _judged(result, judges, sounds, rate, list(texts))
        results.append(result)
    use = codebook_figures(torch.cat([row.flatten() for row in codes]), codec.config.codebook_size)
    results[-1].figures.update({key: round(value, 3) for key, value in use.items()})
    results[-1].figures["times_real_time"] = round(sum(map(len, waves)) / rate / spent, 1)
    return results


@torch.inference_mode()
def judge_answers(
    model: FreezeOmniForConditionalGeneration,
    processor: Any,
    questions: Sequence[str],
    judges: dict[str, Judge],
    batch_size: int = 16,
    progress: Progress = lambda count: None,
    name: str = "answers",
    **settings: Any,
) -> SpeechResult:
    """Answers to questions as text, spoken: how much of what the LLM says can be understood.

    Args:
        model: With a voice.
        processor: Its processor.
        questions: User turns.
        judges: By name.
        batch_size: Questions at a time.
        name: Of the result.
        settings: For ``generate``, e.g. ``speech_top_k``, ``segment_policy``.

    Returns:
        Word error rates against the answers' text, how many answers were cut at ``speech_max_tokens`` or are silent,
        how many go in circles (they do not count in the rates), and how much faster than real time all were made.
    """
    result, waves, spent = SpeechResult(name), [], 0.0
    for start in range(0, len(questions), batch_size):
        batch = list(questions[start : start + batch_size])
        inputs = processor.apply_chat_template(
            [[{"role": "user", "content": question}] for question in batch],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
        ).to(model.device)
        begin = perf_counter()
        output = model.generate(
            **inputs,
            **{"do_sample": False, "max_new_tokens": 40, **settings},
            generation_mode="audio",
            tokenizer=processor.tokenizer,
            return_dict_in_generate=True,
        )
        spent += perf_counter() - begin
        texts = processor.batch_decode(output.sequences[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for question, text, sound, pieces in zip(batch, texts, output.audio, output.segments, strict=True):
            waves.append(sound.float().cpu().numpy())
            cut = any(piece.finish_reason == "length" for piece in pieces)
            row = {"question": question, "text": text.strip(), "cut": cut}
            result.rows.append({**row, "seconds": len(waves[-1]) / processor.output_sampling_rate})
        progress(len(batch))
    rate = processor.output_sampling_rate
    _judged(result, judges, waves, rate, [row["text"] for row in result.rows])
    result.figures.update(
        answers=len(waves),
        cut=sum(row["cut"] for row in result.rows),
        silent=sum(len(wave) == 0 for wave in waves),
        in_circles=sum(goes_in_circles(row["text"]) for row in result.rows),
        times_real_time=round(sum(map(len, waves)) / rate / spent, 2),
    )
    return result


def table(results: Sequence[SpeechResult]) -> str:
    """All figures as one Markdown table."""
    names = list(dict.fromkeys(name for result in results for name in result.figures))
    lines = [f"| what | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for result in results:
        values = [result.figures.get(name) for name in names]
        shown = [
            "-" if value is None else f"{100 * value:.1f} %" if name.startswith("wer") else f"{value:g}"
            for name, value in zip(names, values, strict=True)
        ]
        lines.append(f"| {result.name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def save_results(results: Sequence[SpeechResult], folder: str | Path) -> None:
    """Writes speaking.json, speaking.jsonl, speaking.md and speaking.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = {result.name: {"rows": len(result.rows), **result.figures} for result in results}
    (folder / "speaking.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    with (folder / "speaking.jsonl").open("w", encoding="utf-8") as out:
        for result in results:
            out.writelines(json.dumps({"what": result.name, **row}, ensure_ascii=False) + "\n" for row in result.rows)
    (folder / "speaking.md").write_text(table(results) + "\n", encoding="utf-8")
    judges = [name for name in dict.fromkeys(n for r in results for n in r.figures) if name.startswith("wer_")]
    picture, axis = plt.subplots(figsize=(8, 4.5), constrained_layout=True)
    width = 0.8 / len(judges)
    for place, judge in enumerate(judges):
        heights = [100 * result.figures.get(judge, 0.0) for result in results]
        bars = axis.bar([i + width * place for i in range(len(results))], heights, width, label=judge[4:])
        axis.bar_label(bars, fmt="%.0f", fontsize=8)
    axis.set_xticks([i + 0.3 for i in range(len(results))], [result.name for result in results])
    axis.set_title("words misunderstood, %")
    axis.legend()
    picture.savefig(folder / "speaking.png", dpi=120)
    plt.close(picture)


def run(args: Namespace) -> int:
    """Judge the voice of ``args.checkpoint`` (see the command's help)."""
    judges = {name: JUDGES[name]() for name in args.judges}
    data = args.data or str(cache_dir() / "data" / "embedded" / "speech")
    model = processor = None
    if args.codec:
        codec = FreezeOmniCodec.from_pretrained(args.codec).eval()
    else:
        folder = args.checkpoint or embedded_checkpoint()
        model = FreezeOmniForConditionalGeneration.from_pretrained(folder, language_model=args.llm).eval()
        processor = FreezeOmniProcessor.from_pretrained(folder)
        if not model.config.has_voice:
            raise ValueError(f"{folder} has no voice to judge.")
        codec = model.codec
    spec = {"path": data, "split": "test", "task": "tts", "limit": args.limit}
    report, results = RowReport(), []
    pairs = list(
        decoded_rows(
            load_rows({**spec, "files": "test-sentences-*.parquet"}), report, sampling_rate=codec.config.sampling_rate
        )
    )
    with tqdm(total=len(pairs), desc="codec", unit="row") as bar:
        waves, texts = [wave for _, wave in pairs], [row["text"] for row, _ in pairs]
        results += judge_codec(codec, waves, texts, judges, bar.update)
    if model is not None:
        rows = load_rows({**spec, "task": "qa", "files": "test-answers-*.parquet"})
        questions = [row["messages"][-2]["content"][0]["text"] or row["text"] for row in rows]
        for policy, top_k in product(args.policies or [None], args.top_k):
            name, choice = f"answers, top-k {top_k}", {"speech_top_k": top_k, "speech_do_sample": top_k > 1}
            if policy is not None:
                name, choice["segment_policy"] = f"{name}, {policy}", policy
            with tqdm(total=len(questions), desc=name, unit="row") as bar:
                torch.manual_seed(0)
                results.append(
                    judge_answers(model, processor, questions, judges, progress=bar.update, name=name, **choice)
                )
    print(table(results))
    if args.output:
        save_results(results, args.output)
        print(f"Written to {args.output}.")
    return 0


__all__ = ["SpeechResult", "judge_answers", "judge_codec", "run", "save_results", "table"]
