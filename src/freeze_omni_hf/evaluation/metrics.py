# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Error rates of transcripts and accuracy of answers, used during training and after."""

import re
from collections.abc import Iterable
from functools import cache

from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer


@cache
def _normaliser(language: str):
    return EnglishTextNormalizer({}) if language == "en" else BasicTextNormalizer()


def normalise(text: str, language: str = "en") -> str:
    """Text as error rates compare it: Whisper's normaliser (lower case, no punctuation, numbers as digits)."""
    return _normaliser(language)(text).strip()


def error_rates(predictions: Iterable[str], references: Iterable[str], language: str = "en") -> dict[str, float]:
    """Word and character error rates over a set, of normalised texts.

    Returns:
        ``wer`` and ``cer`` as fractions, and the counts they come from: ``words``, ``substitutions``, ``deletions``,
        ``insertions``. References without words are left out.

    Raises:
        ValueError: different numbers of predictions and references, or no reference with a word.
    """
    import jiwer

    predictions, references = list(predictions), list(references)
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions do not match {len(references)} references.")
    pairs = [
        (normalise(prediction, language), normalise(reference, language))
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    pairs = [pair for pair in pairs if pair[1]]
    if not pairs:
        raise ValueError("No reference holds a word.")
    hypotheses, truths = ([pair[side] for pair in pairs] for side in (0, 1))
    words = jiwer.process_words(truths, hypotheses)
    characters = jiwer.process_characters(truths, hypotheses)
    return {
        "wer": words.wer,
        "cer": characters.cer,
        "words": words.hits + words.substitutions + words.deletions,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
    }


def contains_answer(text: str, accepted: Iterable[str]) -> bool:
    """Whether a text holds one of the accepted answers as whole words, both normalised."""
    found = f" {normalise(text)} "
    return any(re.search(rf"(?<!\w){re.escape(normalise(answer))}(?!\w)", found) for answer in accepted if answer)


__all__ = ["contains_answer", "error_rates", "normalise"]
