# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Word and character error rates of transcripts, as an `evaluate` module that needs no network."""

import datasets
import evaluate

from freeze_omni_hf.evaluation import error_rates


DESCRIPTION = """
Word error rate (wer) and character error rate (cer) over a whole set: edits of all rows by words of all references.
Both sides go through Whisper's normaliser first: lower case, no punctuation, contractions written out, numbers as
digits (English); case and punctuation alone in other languages. References without words are left out.
"""
INPUTS = """
Args:
    predictions: Transcripts.
    references: What was said.
    language: "en" by default.
Returns:
    wer and cer as fractions; words, substitutions, deletions and insertions as counts.
"""


class SpeechWer(evaluate.Metric):
    """See `error_rates`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features, license="Apache-2.0"
        )

    def _compute(self, predictions: list[str], references: list[str], language: str = "en") -> dict[str, float]:
        return error_rates(predictions, references, language)
