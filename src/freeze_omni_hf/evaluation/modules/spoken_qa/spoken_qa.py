# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Accuracy of answers to spoken questions, as an `evaluate` module that needs no network."""

import datasets
import evaluate

from freeze_omni_hf.evaluation import answer_accuracy


DESCRIPTION = """
Share of answers that hold one of the accepted answers as whole words (both normalised). With the same LLM's answers to
the same questions as text, also their accuracy and the ratio of the two: what hearing costs.
"""
INPUTS = """
Args:
    predictions: Answers to spoken questions.
    references: Accepted answers of each question, a list of strings.
    text_predictions: The same LLM's answers to the questions as text (optional).
Returns:
    spoken, and with text_predictions text and ratio (None where no answer to text is right).
"""


class SpokenQa(evaluate.Metric):
    """See `answer_accuracy`."""

    def _info(self) -> evaluate.MetricInfo:
        strings = datasets.Value("string")
        features = datasets.Features({"predictions": strings, "references": datasets.List(strings)})
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features, license="Apache-2.0"
        )

    def _compute(
        self, predictions: list[str], references: list[list[str]], text_predictions: list[str] | None = None
    ) -> dict[str, float | None]:
        return answer_accuracy(predictions, references, text_predictions)
