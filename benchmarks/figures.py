# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What a benchmark measured: as a table, as JSON and as bars."""

import statistics
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch


@dataclass
class Figure:
    """Something measured a few times.

    Attributes:
        label: Its row of the table.
        unit: Unit of ``values``.
        values: One a repeat.
        higher_is_better: Rates, as opposed to times and sizes.
        target: What the median must reach, None without a target.
    """

    label: str
    unit: str
    values: list[float]
    higher_is_better: bool = False
    target: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def worst_tenth(self) -> float:
        """Nine of ten repeats were at least as good: the 90th percentile of times, the 10th of rates."""
        share = 0.1 if self.higher_is_better else 0.9
        return torch.tensor(self.values, dtype=torch.float64).quantile(share).item()

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.median >= self.target if self.higher_is_better else self.median <= self.target

    def to_dict(self) -> dict[str, str | float | int | bool | None]:
        """Plain content, for JSON."""
        names = ("label", "unit", "median", "worst_tenth", "target", "met")
        return {**{name: getattr(self, name) for name in names}, "repeats": len(self.values)}


Figures = dict[str, Figure]


def table(figures: Figures) -> str:
    """The figures as aligned lines."""
    lines = [f"{'':<34}{'median':>9}{'90 %':>9}  {'unit':<12}target"]
    for figure in figures.values():
        line = f"{figure.label:<34}{figure.median:>9.2f}{figure.worst_tenth:>9.2f}  {figure.unit:<12}"
        if figure.target is not None:
            sign = ">=" if figure.higher_is_better else "<="
            line += f"{sign} {figure.target:g}: {'met' if figure.met else 'missed'}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def bars(axes: plt.Axes, parts: dict[str, Figure], unit: str, scale: float = 1.0) -> None:
    """Horizontal bars of medians, from the top down; the thin line reaches to the 90th percentile."""
    medians = [scale * figure.median for figure in parts.values()]
    tails = [scale * max(figure.worst_tenth - figure.median, 0.0) for figure in parts.values()]
    drawn = axes.barh(list(parts), medians, xerr=[[0.0] * len(tails), tails], color="tab:blue", ecolor="tab:gray")
    axes.bar_label(drawn, fmt="%.1f", padding=4)
    axes.invert_yaxis()
    axes.set_xlabel(f"{unit}, median and 90th percentile")
