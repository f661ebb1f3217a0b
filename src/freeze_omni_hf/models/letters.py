# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Letters of texts and of LLM tokens, as classes and as vectors."""

import hashlib
import string
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


CHARACTERS = " '" + string.ascii_lowercase
"""Classes 1 to 28 of letters; 0 is the blank of CTC."""

LETTERS_PER_TOKEN = 24


def character_ids(text: str) -> list[int]:
    """Classes of the letters, apostrophes and spaces of ``text``; 0, the blank, is not among them."""
    return [CHARACTERS.index(letter) + 1 for letter in " ".join(_known(text).split())]


def letter_classes(texts: Sequence[str]) -> Tensor:
    """(N, `LETTERS_PER_TOKEN`) int8 classes of the letters of tokens, 0 behind their end; longer ones are cut.

    Leading spaces stay, what is neither letter nor apostrophe becomes a space inside a token and is left out at its
    end, so that tokens in a row spell their text (spaces in a row counted once).
    """
    rows = []
    for text in texts:
        known = _known(text)
        start = " " if known[:1] == " " and known.strip() else ""
        rows.append([CHARACTERS.index(letter) + 1 for letter in start + " ".join(known.split())])
    classes = torch.zeros(len(rows), LETTERS_PER_TOKEN, dtype=torch.int8)
    for place, row in enumerate(rows):
        classes[place, : len(row)] = torch.tensor(row[:LETTERS_PER_TOKEN], dtype=torch.int8)
    return classes


def _known(text: str) -> str:
    return "".join(letter if letter in CHARACTERS else " " for letter in text.lower().replace("’", "'"))


def spelling_vectors(texts: Sequence[str], size: int) -> Tensor:
    """(N, size) int8: for every one, two and three letters in a row of a text, a fixed pattern of ±1, added up.

    Texts that share letters have similar vectors. Case and what is no letter or digit do not count; a leading space is
    the start of a word, and counts as a letter.
    """
    patterns: dict[str, np.ndarray] = {}

    def pattern(letters: str) -> np.ndarray:
        if letters not in patterns:
            digest = hashlib.shake_128(letters.encode()).digest(-(-size // 8))
            bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))[:size]
            patterns[letters] = 2 * bits.astype(np.int16) - 1
        return patterns[letters]

    rows = np.zeros((len(texts), size), dtype=np.int16)
    for row, text in zip(rows, texts, strict=True):
        letters = "".join(letter for letter in text.lower() if letter.isalnum())
        letters = f"^{letters}" if text.startswith(" ") or (text[:1].isupper()) else letters
        for length in (1, 2, 3):
            for start in range(len(letters) - length + 1):
                row += pattern(letters[start : start + length])
    return torch.from_numpy(rows.clip(-127, 127).astype(np.int8))


__all__ = ["CHARACTERS", "LETTERS_PER_TOKEN", "character_ids", "letter_classes", "spelling_vectors"]
