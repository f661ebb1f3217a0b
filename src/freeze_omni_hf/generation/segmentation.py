# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Cutting an answer's text into the pieces that are spoken one after the other (Freeze-Omni, section 3.2)."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from transformers.utils import logging


logger = logging.get_logger(__name__)

BORDERS = tuple("。：？！.?!\n")
SOFT_BORDERS = (*BORDERS, ",", "，", ":", ";", "；", "、")


def clean_released(text: str) -> str:
    """The released model's clean-up of a piece of text before it is tokenised again for the speech decoder."""
    text = text.replace("、", "，").replace("(", ",").replace(")", ",").replace("（", "，").replace("）", "，")
    text = re.sub(r"[\n\r\t*_`~]", "", text)
    text = re.sub(r"([.:])\s+", r"\1", text)
    if re.search("[一-龥]", text):
        text = re.sub(r"(\d+)\.\s*([一-龥A-Za-z])", r"\1：\2", text)
    else:
        text = re.sub(r"(\d+)\.\s*(\w)", r"\1:\2", text)
    if text and text[-1] not in "。？！.?!":
        text = (text[:-1] if text[-1] in ",，;；:：、" else text) + "。"
    return text


@cache
def _spoken_forms() -> Any:
    try:
        from wetext import Normalizer
    except ImportError:
        logger.warning(
            "Numbers, units and abbreviations are read out as they are written: segment_text_cleaner='spoken' needs "
            "wetext (pip install freeze-omni-hf[speak])."
        )
        return None
    return Normalizer(lang="en", operator="tn")


def clean_spoken(text: str) -> str:
    """English text as it is read out: numbers, dates, amounts, units, abbreviations and addresses as words (wetext).

    Marks of Markdown are left out. Space at the start stays, so that a piece from inside a sentence remains one.
    """
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)  # the text of a link, without its address
    text = re.sub(r"[*_`#~|]+", " " if re.search(r"\w[*_`#~|]+\w", text) else "", text)
    start = text[: len(text) - len(text.lstrip())]
    text = " ".join(text.split())
    if re.search(r"[^\w\s.,;:!?'’\"()-]|\d|[A-Z]\.|\b(?:Dr|Mr|Mrs|Ms|St|vs|etc)\.", text):
        forms = _spoken_forms()
        text = text if forms is None else forms.normalize(text)
    return start[:1] + text


CLEANERS = {"released": clean_released, "spoken": clean_spoken}


def segment_token_ids(tokenizer: Any) -> dict[str, list[int]]:
    """The ``segment_*_token_ids`` of a tokenizer, for the generation config: which ids end a sentence or a clause."""
    special = set(tokenizer.all_special_ids)
    ids: dict[str, list[int]] = {
        "segment_border_token_ids": [],
        "segment_soft_border_token_ids": [],
        "segment_dot_token_ids": [],
        "segment_digit_token_ids": [],
        "segment_silent_token_ids": sorted(special),
    }
    plain = [index for index in range(len(tokenizer)) if index not in special]
    for index, text in zip(plain, tokenizer.batch_decode([[index] for index in plain]), strict=True):
        if text.endswith(BORDERS):
            ids["segment_border_token_ids"].append(index)
        if text.endswith(SOFT_BORDERS):
            ids["segment_soft_border_token_ids"].append(index)
        if text.endswith("."):
            ids["segment_dot_token_ids"].append(index)
        if text[-1:].isdigit():
            ids["segment_digit_token_ids"].append(index)
        if not text.strip():
            ids["segment_silent_token_ids"].append(index)
    return ids


@dataclass
class Segment:
    """A piece of one row's answer.

    Attributes:
        row: Row of the batch.
        start: First generated token of the piece.
        end: One past the last.
        text: Its text, where a tokenizer was given.
    """

    row: int
    start: int
    end: int
    text: str | None = None


class IncrementalText:
    """Text of a growing list of ids, piece by piece, at a cost that does not grow with it.

    A character whose bytes are still coming is held back until it is whole.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.prefix = self.read = 0

    def _decode(self, start: int, end: int) -> str:
        return self.tokenizer.decode(self.ids[start:end], skip_special_tokens=True)

    def push(self, token: int, final: bool = False) -> str:
        """The text that became certain with ``token``."""
        self.ids.append(token)
        return self._advance(final)

    def finish(self) -> str:
        """What was held back."""
        return self._advance(True)

    def _advance(self, final: bool) -> str:
        known = self._decode(self.prefix, self.read)
        text = self._decode(self.prefix, len(self.ids))
        if text.endswith("\ufffd") and not final:
            return ""
        self.prefix, self.read = self.read, len(self.ids)
        return text[len(known) :]


class Segmenter:
    """Decides after each token of one row whether a piece ends (settings: `FreezeOmniGenerationConfig`).

    With a tokenizer borders are read off the text, without one off the ids that the processor saved. The first token
    of an answer alone never ends a piece, and a full stop behind a digit does not either, as released.
    """

    def __init__(self, settings: Any, row: int = 0, tokenizer: Any = None):
        self.settings, self.row = settings, row
        self.text = None if tokenizer is None else IncrementalText(tokenizer)
        self.borders = set(settings.segment_border_token_ids)
        self.soft_borders = set(settings.segment_soft_border_token_ids)
        self.dots = set(settings.segment_dot_token_ids)
        self.digits = set(settings.segment_digit_token_ids)
        self.silent = set(settings.segment_silent_token_ids)
        self.start = self.count = 0
        self.pieces: list[str] = []
        self.previous_id: int | None = None
        self.previous_text = ""
        self.closed = 0

    def push(self, token: int) -> list[Segment]:
        """Take the next token; the pieces that ended with it or, where a new word began, before it."""
        done: list[Segment] = []
        piece = None if self.text is None else self.text.push(token)
        if piece is not None and self._word_limit(piece):
            done += self._close()
        self.count += 1
        if piece is not None:
            self.pieces.append(piece)
        strong, soft = self._classify(token, piece)
        if self._ends(strong, soft):
            done += self._close()
        self.previous_id = token
        if piece:
            self.previous_text = piece
        return done

    def finish(self) -> list[Segment]:
        """The piece that is left at the end of the answer."""
        if self.text is not None:
            self.pieces.append(self.text.finish())
        return self._close()

    def _classify(self, token: int, piece: str | None) -> tuple[bool, bool]:
        if piece is None:
            after_digit = token in self.dots and self.previous_id in self.digits
            return token in self.borders and not after_digit, token in self.soft_borders and not after_digit
        if self.count == 1:
            # The released loop looks at the first two tokens together.
            return False, False
        if self.count == 2 and len(self.pieces) >= 2:
            piece, before = self.pieces[-2] + piece, ""
        else:
            before = self.previous_text
        after_digit = piece.endswith(".") and before[-1:].isdigit()
        return piece.endswith(BORDERS) and not after_digit, piece.endswith(SOFT_BORDERS) and not after_digit

    def _ends(self, strong: bool, soft: bool) -> bool:
        pending = self.count - self.start
        if self.count == 1:
            return False
        if self.settings.segment_policy == "sentence":
            return strong
        if pending < max(self.settings.segment_min_tokens, 1):
            return False
        return strong or (soft and (self.closed == 0 or pending >= self.settings.segment_soft_after_tokens))

    def _word_limit(self, piece: str) -> bool:
        return (
            self.settings.segment_policy == "short_first"
            and self.closed == 0
            and self.count - self.start >= self.settings.segment_first_max_tokens
            and piece[:1].isspace()
        )

    def _close(self) -> list[Segment]:
        if self.count == self.start:
            return []
        text = None if self.text is None else "".join(self.pieces)
        segment = Segment(self.row, self.start, self.count, text)
        self.start, self.pieces = self.count, []
        self.closed += 1
        return [segment]


__all__ = [
    "BORDERS",
    "CLEANERS",
    "SOFT_BORDERS",
    "IncrementalText",
    "Segment",
    "Segmenter",
    "clean_released",
    "segment_token_ids",
]
