# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Error rates of transcripts and accuracy of answers, used during training and after."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

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


def answer_accuracy(
    spoken: Sequence[str], accepted: Sequence[Sequence[str]], text: Sequence[str] | None = None
) -> dict[str, float | None]:
    """Share of answers that are right, and what hearing costs the LLM.

    Args:
        spoken: Answers to spoken questions.
        accepted: Accepted answers of each question.
        text: The same LLM's answers to the same questions as text.

    Returns:
        ``spoken``, and with ``text`` also ``text`` and ``ratio``, None where no answer to text is right.

    Raises:
        ValueError: different numbers of answers and questions, or none.
    """
    if not spoken or any(len(answers) != len(accepted) for answers in (spoken, text) if answers is not None):
        raise ValueError(f"{len(spoken)} answers to {len(accepted)} questions cannot be compared.")
    right = {
        way: sum(contains_answer(answer, good) for answer, good in zip(answers, accepted, strict=True))
        for way, answers in (("spoken", spoken), ("text", text))
        if answers is not None
    }
    result: dict[str, float | None] = {way: count / len(accepted) for way, count in right.items()}
    if text is not None:
        result["ratio"] = right["spoken"] / right["text"] if right["text"] else None
    return result


def module_path(name: str) -> str:
    """Folder of an `evaluate` module of this package, for ``evaluate.load``: "speech_wer" or "spoken_qa".

    Raises:
        ValueError: another name.
    """
    folder = Path(__file__).parent / "modules" / name
    if not folder.is_dir() or not name:
        known = sorted(path.name for path in folder.parent.iterdir() if path.is_dir() and path.name[0] != "_")
        raise ValueError(f"There is no metric {name!r}; there are {', '.join(known)}.")
    return str(folder)


__all__ = ["answer_accuracy", "contains_answer", "error_rates", "module_path", "normalise"]
