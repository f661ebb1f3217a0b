# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What a finished stage leaves beside its weights: settings, figures and loss curve, as a model card and a plot."""

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments


def losses(history: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """(step, training loss) of a Trainer's log history."""
    return [(entry["step"], float(entry["loss"])) for entry in history if "loss" in entry]


def figures(history: list[dict[str, Any]]) -> dict[str, float]:
    """The last value of every evaluation figure, and the last training loss."""
    last: dict[str, float] = {}
    for entry in history:
        last.update(
            {name: value for name, value in entry.items() if name.startswith("eval_") and isinstance(value, float)}
        )
    timing = ("_runtime", "_per_second")
    last = {name: value for name, value in last.items() if not name.endswith(timing)}
    curve = losses(history)
    return {**({"loss": curve[-1][1]} if curve else {}), **last}


def plot_losses(history: list[dict[str, Any]], file: str | Path) -> None:
    """The loss over the steps, and the evaluation figures where there are any."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.5), constrained_layout=True)
    axis.plot(*zip(*losses(history), strict=True), label="training loss")
    names = sorted({name for entry in history for name in entry if name.startswith("eval_")} & set(figures(history)))
    for name in names:
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        axis.plot(*zip(*points, strict=True), marker="o", label=name.removeprefix("eval_"))
    axis.set_xlabel("step")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def stage_card(name: str, model: Any, settings: list[Any], history: list[dict[str, Any]], skipped: str) -> str:
    """Markdown: what was trained on what, with which settings, and how it went.

    Args:
        name: Of the stage.
        model: The model, whose configuration names the LLM, or a codec.
        settings: Dataclasses or `TrainingArguments` of the run.
        history: Trainer's log history.
        skipped: What the collator reports of rows that were left out.
    """
    chosen: dict[str, Any] = {}
    for part in settings:
        values = _changed(part) if isinstance(part, TrainingArguments) else asdict(part)
        chosen.update(
            {key: value for key, value in values.items() if value not in (None, [], {}, "") and key != "output_dir"}
        )
    llm = getattr(model.config, "llm_name_or_path", None)
    about = (
        "A codec: sound to speech tokens and back."
        if llm is None
        else f"Speech parts for [{llm}](https://huggingface.co/{llm}), whose weights are not in this folder and were "
        "not changed (checked bit by bit after training)."
    )
    lines = [
        f"# {name}",
        "",
        about,
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {key} | {value:.4g} |" for key, value in figures(history).items()),
        "",
        "![loss](loss.png)" if losses(history) else "",
        "",
        f"Rows: {skipped.splitlines()[0]}",
        "",
        "```yaml",
        yaml.safe_dump(_plain(chosen), sort_keys=True, allow_unicode=True).strip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _changed(arguments: TrainingArguments) -> dict[str, Any]:
    """Trainer's settings that differ from their defaults."""
    defaults = TrainingArguments(output_dir="unused", use_cpu=True).to_dict()
    return {key: value for key, value in arguments.to_dict().items() if value != defaults.get(key)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


__all__ = ["figures", "losses", "plot_losses", "stage_card"]
