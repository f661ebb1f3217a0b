# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Which letter is said when: forced alignment of speech tokens with their text, and cutting rows by it."""

import re
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..models.letters import CHARACTERS
from ..models.reading import MOST_LETTERS


def align_letters(log_probs: Tensor, letters: Sequence[int]) -> list[int] | None:
    """The likeliest time of each letter (Viterbi through the states of CTC).

    Args:
        log_probs: (N, classes) of one row, class 0 the blank.
        letters: Classes of its text.

    Returns:
        The step in the middle of each letter; None where the text does not fit into N steps.
    """
    scores, labels = log_probs.double().cpu().numpy(), np.asarray(letters)
    steps, count = len(scores), len(labels)
    if not count or steps < count + int((labels[1:] == labels[:-1]).sum()):
        return None
    states = np.zeros(2 * count + 1, dtype=np.int64)
    states[1::2] = labels
    # A blank between two letters can be left out unless they are the same.
    skips = np.zeros(len(states), dtype=bool)
    skips[3::2] = labels[1:] != labels[:-1]
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0, states[:2]]
    moves = np.zeros((steps, len(states)), dtype=np.int8)
    for step in range(1, steps):
        ways = np.stack((best, _shift(best, 1), np.where(skips, _shift(best, 2), -np.inf)))
        moves[step] = ways.argmax(axis=0)
        best = ways.max(axis=0) + scores[step, states]
    state = len(states) - 1 if best[-1] >= best[-2] else len(states) - 2
    seen: list[list[int]] = [[] for _ in labels]
    for step in range(steps - 1, -1, -1):
        if state % 2:
            seen[state // 2].append(step)
        state -= int(moves[step, state])
    return [times[len(times) // 2] for times in seen]


def _shift(values: np.ndarray, by: int) -> np.ndarray:
    return np.concatenate((np.full(by, -np.inf), values[:-by]))


def letter_times(classes: Sequence[int], letters: Sequence[int], times: Sequence[int], end: int) -> np.ndarray | None:
    """Time of each letter of a row of LLM tokens, from those of its text.

    Args:
        classes: Letters of the tokens (`LetterReader.spell`), 0 for a token without.
        letters: Classes of the text (`character_ids`).
        times: Their times.
        end: Speech tokens of the row.

    Returns:
        (R,) times; places without a letter lie between their neighbours. None where tokens and text do not agree.
    """
    found, place = np.full(len(classes), np.nan), 0
    for row, letter in enumerate(classes):
        if letter == 0:
            continue
        while place < len(letters) and letters[place] != letter:
            # Only a space may have no token of its own.
            if CHARACTERS[letters[place] - 1] != " ":
                return None
            place += 1
        if place == len(letters):
            return None
        found[row], place = times[place], place + 1
    known = np.flatnonzero(~np.isnan(found))
    if not len(known) or any(CHARACTERS[letter - 1] != " " for letter in letters[place:]):
        return None
    rows = np.arange(len(classes))
    return np.interp(rows, [-1, *known, len(classes)], [0, *found[known], end])


def places_of(times: np.ndarray, count: int) -> list[int]:
    """The letter at which each of ``count`` speech tokens and the end are said, from the times (R,) of letters.

    A letter is said from half way behind the letter before it to half way to the next. The first token is at the first
    letter, and the place moves on by no more than `MOST_LETTERS`.
    """
    wanted = np.searchsorted((times[1:] + times[:-1]) / 2, np.arange(count + 1), side="right")
    places = [0]
    for want in wanted[1:].tolist():
        places.append(min(want, places[-1] + MOST_LETTERS))
    return places


def cut_text(
    text: str, generator: np.random.Generator, first_words: tuple[int, int] = (3, 9)
) -> list[tuple[int, int]]:
    """Pieces (start, end) of a text like those in which an answer is spoken: sentences, the first sometimes in two.

    A piece behind another starts with the space between them.
    """
    ends = [found.end() for found in re.finditer(r"[.?!:]+(?=\s+\S)", text)]
    borders = [0, *ends, len(text)]
    words = [found.start() for found in re.finditer(r"(?<=\S)\s+(?=\S)", text[: borders[1]])]
    at = int(generator.integers(first_words[0], first_words[1] + 1))
    if len(words) > at and generator.random() < 0.5:
        borders.insert(1, words[at - 1])
    return list(zip(borders[:-1], borders[1:], strict=True))


__all__ = ["align_letters", "cut_text", "letter_times", "places_of"]
