# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""From pieces of text with their hidden states to speech tokens (Freeze-Omni, section 3.2)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .sampling import choose_speech_tokens


@dataclass
class SpokenSegment:
    """What the speech decoder reads of one piece, and what it made of it.

    Attributes:
        row: Row of the batch.
        text: The piece's text, where a tokenizer was given.
        text_ids: (T,) ids whose embeddings are read.
        hidden: (P, llm_hidden_size) hidden states that produced the piece's tokens.
        speech_tokens: (N,) the result.
        places: (N + 1,) the letter at which each of them and the end is said, of a decoder with letters.
        finish_reason: ``"end"``, or ``"length"`` where ``speech_max_tokens`` cut it.
    """

    row: int
    text: str | None
    text_ids: Tensor
    hidden: Tensor
    speech_tokens: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    places: Tensor | None = None
    finish_reason: str | None = None


class SpeechTokenGenerator:
    """Runs a speech decoder on pieces of text, many at once or one with its tokens as they come.

    Args:
        decoder: The speech decoder (``prefill`` and ``step``).
        embed: Looks up LLM input embeddings of ids.
        settings: `FreezeOmniGenerationConfig`.
        sample: Sample speech tokens, or take the best.
    """

    def __init__(self, decoder: Any, embed: Any, settings: Any, sample: bool):
        self.decoder, self.embed, self.settings, self.sample = decoder, embed, settings, sample

    @torch.no_grad()
    def speak(self, segments: list[SpokenSegment]) -> None:
        """Fill in ``speech_tokens`` of all pieces, in padded batches of pieces of like length."""
        order = sorted(range(len(segments)), key=lambda index: len(segments[index].text_ids))
        size = self.settings.speech_batch_size
        for start in range(0, len(order), size):
            batch = [segments[index] for index in order[start : start + size]]
            chosen: list[list[Tensor]] = [[] for _ in batch]
            for rows, tokens in self._steps(batch):
                for row, token in zip(rows.tolist(), tokens, strict=True):
                    chosen[row].append(token)
            for segment, tokens in zip(batch, chosen, strict=True):
                if tokens:
                    segment.speech_tokens = torch.stack(tokens)

    @torch.no_grad()
    def stream(self, segment: SpokenSegment) -> Iterator[Tensor]:
        """The piece's speech tokens one after the other, each (1,)."""
        tokens = []
        for _, token in self._steps([segment]):
            tokens.append(token)
            yield token
        if tokens:
            segment.speech_tokens = torch.cat(tokens)

    def _steps(self, batch: list[SpokenSegment]) -> Iterator[tuple[Tensor, Tensor]]:
        """Step a batch; yields the rows that are not finished and their new tokens."""
        config = self.decoder.config
        weight = self.decoder.embedding.weight
        text, text_mask = _pad([self.embed(segment.text_ids) for segment in batch], weight)
        hidden, hidden_mask = _pad([segment.hidden for segment in batch], weight)
        ids = pad_sequence([segment.text_ids for segment in batch], batch_first=True) if config.letters else None
        cache = self.decoder.prefill(text, text_mask, hidden, hidden_mask, ids)
        places: list[list[int]] = [[] for _ in batch]
        rows = torch.arange(len(batch), device=weight.device)
        tokens = torch.full_like(rows, config.bos_speech_token_id)
        history = tokens[:, None]
        for _ in range(self.settings.speech_max_tokens):
            self._note(rows, cache, places)
            output = self.decoder.step(tokens, cache)
            cache = output.cache
            tokens = choose_speech_tokens(
                output.logits[:, -1], history, self.settings, config.codebook_size, self.sample
            )
            going = tokens != config.eos_speech_token_id
            if not bool(going.all()):
                for row in rows[~going].tolist():
                    batch[row].finish_reason = "end"
                    self._keep(batch[row], places[row])
                if not bool(going.any()):
                    return
                rows, tokens, history, cache = rows[going], tokens[going], history[going], cache.select(going)
            yield rows, tokens
            history = torch.cat((history, tokens[:, None]), dim=1)
        self._note(rows, cache, places)
        for row in rows.tolist():
            self._keep(batch[row], places[row])
        # One more step tells whether a piece ended just at the limit.
        ended = self.decoder.step(tokens, cache).logits[:, -1].argmax(dim=-1) == config.eos_speech_token_id
        for row, at_end in zip(rows.tolist(), ended.tolist(), strict=True):
            batch[row].finish_reason = "end" if at_end else "length"

    @staticmethod
    def _note(rows: Tensor, cache: Any, places: list[list[int]]) -> None:
        if cache.reading is not None:
            for row, place in zip(rows.tolist(), cache.reading.place.tolist(), strict=True):
                places[row].append(place)

    @staticmethod
    def _keep(segment: SpokenSegment, places: list[int]) -> None:
        if places:
            segment.places = torch.tensor(places)


def _pad(vectors: list[Tensor], like: Tensor) -> tuple[Tensor, Tensor | None]:
    """(B, longest, width) and a (B, longest) mask, None where nothing is padded."""
    lengths = [len(item) for item in vectors]
    longest = max(lengths)
    padded = torch.stack([F.pad(item.to(like), (0, 0, 0, longest - len(item))) for item in vectors])
    if min(lengths) == longest:
        return padded, None
    return padded, torch.arange(longest, device=like.device) < torch.tensor(lengths, device=like.device)[:, None]


__all__ = ["SpeechTokenGenerator", "SpokenSegment"]
