# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Hearing by search: what was said is what sounds like it, reads like it, and is spelled like it.

The adapter says of each vector which LLM tokens it may be (CTC), the encoder's frames say which letters are heard,
and the frozen LLM says what it expects next. A prefix beam search (after arXiv 1408.2873, with the letters' prefix
score of arXiv 1609.06773) weighs the three while speech comes in; the LLM then reads the embeddings of the tokens that
it settled on.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..language_model import cache_of
from .text import check_placeholders


NEVER = -np.inf
# Log-probability of "no token here" above which a vector is passed over.
SURELY_NOTHING = -0.02
# Every letter costs something even where it is right, so that hypotheses which run behind would be better for it.
LETTER_BONUS = 1.2


@dataclass
class HearingSettings:
    """Weights of the search; see `FreezeOmniGenerationConfig` for each.

    Attributes:
        beams: Hypotheses that are kept.
        candidates: Tokens that are looked at in a vector.
        llm_weight: Weight of the LLM's log-probabilities; the adapter's has 1.
        letter_weight: Weight of the letters' log-probabilities.
        token_bonus: Added for every token, since every token costs.
        margin: Hypotheses so much below the best are given up.
    """

    beams: int = 8
    candidates: int = 40
    llm_weight: float = 0.4
    letter_weight: float = 0.5
    token_bonus: float = 1.5
    margin: float = 12.0


@dataclass
class Heard:
    """What a search settled on.

    Attributes:
        token_ids: LLM tokens.
        places: Vector in which each was first heard.
        score: Weighted log-probability.
    """

    token_ids: list[int]
    places: list[int]
    score: float


class LetterFrames:
    """(F, classes) log-probabilities of letters, growing as speech comes in; class 0 is the blank."""

    def __init__(self, classes: int):
        self.rows = np.zeros((0, classes))

    def add(self, frames: np.ndarray) -> np.ndarray:
        """The new frames as they are kept: the likeliest class of each costs nothing.

        A hypothesis is then measured against the best that could be said of the sound up to where it ends: one that
        runs behind in sound of which nobody knows what it says is not better for it.
        """
        frames = frames - frames.max(axis=1, keepdims=True)
        self.rows = np.concatenate((self.rows, frames))
        return frames


class LetterScore:
    """CTC prefix score of a sequence of letters, which grows in letters (`extended`) and in frames (`advance`).

    Attributes:
        prefix: Log-probability that what was heard so far begins with these letters.
    """

    def __init__(self, frames: LetterFrames):
        self.frames, self.classes = frames, np.zeros(0, dtype=np.int64)
        silence = np.concatenate(([0.0], np.cumsum(frames.rows[:, 0])))
        # Of each number of letters, ending in a letter or in a blank, now; and of all of them at each time.
        self.letter, self.blank = np.full(1, NEVER), silence[-1:]
        self.letter_past, self.blank_past = np.full(len(silence), NEVER), silence
        self.prefix = 0.0

    @property
    def so_far(self) -> float:
        """`prefix`, made up for the length: while speech goes on, hypotheses of more and fewer letters compete."""
        return self.prefix + LETTER_BONUS * len(self.classes)

    @property
    def whole(self) -> float:
        """Log-probability that exactly these letters were heard."""
        return float(np.logaddexp(self.letter[-1], self.blank[-1]))

    def advance(self, frames: np.ndarray) -> None:
        """Take (f, classes) new frames into account; `LetterFrames` has them already."""
        letters, blanks = [self.letter_past], [self.blank_past]
        doubled = self.classes[1:] == self.classes[:-1]
        for frame in frames:
            either = np.logaddexp(self.letter, self.blank)
            ready = either[:-1].copy()
            ready[1:][doubled] = self.blank[1:-1][doubled]
            said = frame[self.classes]
            self.letter = np.concatenate(([NEVER], np.logaddexp(self.letter[1:], ready) + said))
            self.blank = either + frame[0]
            if len(said):
                self.prefix = float(np.logaddexp(self.prefix, ready[-1] + said[-1]))
            letters.append(self.letter[-1:])
            blanks.append(self.blank[-1:])
        self.letter_past, self.blank_past = np.concatenate(letters), np.concatenate(blanks)

    def extended(self, classes: Sequence[int]) -> "LetterScore":
        """The score of these letters and more; a space behind a space or at the very start does not count."""
        new = copy.copy(self)
        for letter in classes:
            last = new.classes[-1] if len(new.classes) else None
            if letter == 1 and last in (None, 1):
                continue
            said, nothing = np.cumsum(new.frames.rows[:, letter]), np.cumsum(new.frames.rows[:, 0])
            ready = new.blank_past if letter == last else np.logaddexp(new.letter_past, new.blank_past)
            enter = ready[:-1] + new.frames.rows[:, letter]
            # Staying costs the letter of each frame: in a frame of reference that moves with it, staying is free.
            letters = np.concatenate(([NEVER], said + np.logaddexp.accumulate(enter - said)))
            before = letters[:-1] - np.concatenate(([0.0], nothing[:-1]))
            blanks = np.concatenate(([NEVER], nothing + np.logaddexp.accumulate(before)))
            new.classes = np.append(new.classes, letter)
            new.prefix = float(np.logaddexp.reduce(enter)) if len(enter) else NEVER
            new.letter_past, new.blank_past = letters, blanks
            new.letter, new.blank = np.append(new.letter, letters[-1]), np.append(new.blank, blanks[-1])
        return new


@dataclass
class _Hypothesis:
    """Tokens, and the log-probabilities that speak for them; ``silent`` and ``sounding`` as in CTC."""

    ids: tuple[int, ...]
    places: tuple[int, ...]
    silent: float
    sounding: float
    expected: float
    letters: LetterScore | None
    next: np.ndarray | None = None

    def score(self, letter_weight: float) -> float:
        spelled = 0.0 if self.letters is None else letter_weight * self.letters.so_far
        return float(np.logaddexp(self.silent, self.sounding)) + self.expected + spelled


@dataclass
class HearingSearch:
    """The search itself, over numbers alone.

    Args:
        settings: Weights and widths.
        expect: Takes prefixes (tuples of token ids, all that are alive) and gives (n, vocabulary) log-probabilities
            of the token behind each.
        spell: Letter classes of a token id.
        letters: Whether frames of letters are given.
    """

    settings: HearingSettings
    expect: Callable[[list[tuple[int, ...]]], np.ndarray]
    spell: Callable[[int], Sequence[int]] = lambda token: ()
    letters: int | None = None
    count: int = 0
    alive: list[_Hypothesis] = field(default_factory=list)

    def __post_init__(self):
        self.frames = LetterFrames(self.letters) if self.letters else None
        start = LetterScore(self.frames) if self.letters else None
        self.alive = [_Hypothesis((), (), 0.0, NEVER, 0.0, start)]

    def push(self, gate: float, ids: Sequence[int], log_probs: Sequence[float], letters: np.ndarray | None) -> None:
        """One vector: log-odds of a token, the likeliest tokens and their log-probabilities, its frames of letters."""
        nothing, something = -np.logaddexp(0.0, gate), -np.logaddexp(0.0, -gate)
        if self.frames is not None:
            letters = self.frames.add(letters)
            for hypothesis in self.alive:
                hypothesis.letters.advance(letters)
        place, self.count = self.count, self.count + 1
        if nothing > SURELY_NOTHING:
            for hypothesis in self.alive:
                hypothesis.silent = float(np.logaddexp(hypothesis.silent, hypothesis.sounding)) + nothing
                hypothesis.sounding = NEVER
            return
        self._look_ahead()
        heard = {token: float(value) + something for token, value in zip(ids, log_probs, strict=True)}
        known = {hypothesis.ids: hypothesis for hypothesis in self.alive}
        before = {h.ids: (h.silent, float(np.logaddexp(h.silent, h.sounding)), h.sounding) for h in self.alive}
        for hypothesis in self.alive:
            _, either, sounding = before[hypothesis.ids]
            again = heard.get(hypothesis.ids[-1], NEVER) if hypothesis.ids else NEVER
            hypothesis.silent, hypothesis.sounding = either + nothing, sounding + again
        new = []
        for hypothesis in list(self.alive):
            silent, either, _ = before[hypothesis.ids]
            for token, value in heard.items():
                base = silent if hypothesis.ids and hypothesis.ids[-1] == token else either
                if base == NEVER:
                    continue
                other = known.get((*hypothesis.ids, token))
                if other is not None:
                    other.sounding = float(np.logaddexp(other.sounding, base + value))
                    continue
                expected = self.settings.llm_weight * float(hypothesis.next[token]) + self.settings.token_bonus
                spelled = 0.0 if hypothesis.letters is None else hypothesis.letters.so_far
                hope = base + value + hypothesis.expected + expected + self.settings.letter_weight * spelled
                new.append((hope, base + value, expected, hypothesis, token))
        self.alive = self._best([*self.alive, *self._grown(new, place)])

    def finish(self, end: int | None = None) -> Heard:
        """The best hypothesis, now that no more speech comes.

        Args:
            end: Token that the LLM reads next, if it is known.
        """
        self._look_ahead()
        best = None
        for hypothesis in self.alive:
            score = hypothesis.score(0.0)
            if end is not None:
                score += self.settings.llm_weight * float(hypothesis.next[end])
            if hypothesis.letters is not None:
                score += self.settings.letter_weight * hypothesis.letters.whole
            if best is None or score > best.score:
                best = Heard(list(hypothesis.ids), list(hypothesis.places), score)
        return best

    def _look_ahead(self) -> None:
        if any(hypothesis.next is None for hypothesis in self.alive):
            rows = self.expect([hypothesis.ids for hypothesis in self.alive])
            for hypothesis, row in zip(self.alive, rows, strict=True):
                hypothesis.next = row

    def _grown(self, new: list[tuple], place: int) -> list[_Hypothesis]:
        """The most hopeful new hypotheses; only for them letters are counted."""
        new = sorted(new, key=lambda item: -item[0])[: 2 * self.settings.beams]
        grown = []
        for _, sounding, expected, parent, token in new:
            letters = None if parent.letters is None else parent.letters.extended(self.spell(token))
            grown.append(
                _Hypothesis(
                    (*parent.ids, token),
                    (*parent.places, place),
                    NEVER,
                    sounding,
                    parent.expected + expected,
                    letters,
                )
            )
        return grown

    def _best(self, hypotheses: list[_Hypothesis]) -> list[_Hypothesis]:
        scored = [(hypothesis.score(self.settings.letter_weight), hypothesis) for hypothesis in hypotheses]
        scored.sort(key=lambda item: -item[0])
        lowest = scored[0][0] - self.settings.margin
        return [hypothesis for score, hypothesis in scored[: self.settings.beams] if score >= lowest]


class Expectations:
    """What the frozen LLM expects behind a conversation and each of several beginnings of what is being said.

    What all beginnings share is read once and kept; only their ends are read anew.

    Args:
        model: The model, for its LLM.
        embeds: (1, S, width) of the conversation so far.
        attention_mask: (1, P + S).
        cache: The LLM's cache of P positions before them; it is not changed.
    """

    def __init__(self, model: Any, embeds: Tensor, attention_mask: Tensor, cache: Any = None):
        self.model, self.settled = model, ()
        self.mask, self.cache = attention_mask, copy.deepcopy(cache)
        self.last = self._read(embeds)
        self.memory: dict[tuple[int, ...], np.ndarray] = {}

    def __call__(self, prefixes: list[tuple[int, ...]]) -> np.ndarray:
        self._settle(prefixes)
        self.memory = {prefix: self.memory[prefix] for prefix in prefixes if prefix in self.memory}
        self.memory[self.settled] = self.last
        new = [prefix for prefix in prefixes if prefix not in self.memory]
        if new:
            self.memory.update(zip(new, self._try([prefix[len(self.settled) :] for prefix in new]), strict=True))
        return np.stack([self.memory[prefix] for prefix in prefixes])

    def _settle(self, prefixes: list[tuple[int, ...]]) -> None:
        """Read what is common to all beginnings into the cache."""
        shortest = min(prefixes, key=len)
        shared = len(self.settled)
        while shared < len(shortest) and all(prefix[shared] == shortest[shared] for prefix in prefixes):
            shared += 1
        if shared == len(self.settled):
            return
        embeds = self._embed([shortest[len(self.settled) : shared]])
        self.mask = torch.cat((self.mask, self.mask.new_ones(1, embeds.shape[1])), dim=1)
        self.last, self.settled = self._read(embeds), shortest[:shared]

    @torch.no_grad()
    def _read(self, embeds: Tensor) -> np.ndarray:
        output = self.model.run_language_model(
            embeds, self.mask, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        self.cache = cache_of(output)
        return output.logits[0, -1].float().log_softmax(dim=-1).cpu().numpy()

    @torch.no_grad()
    def _try(self, ends: list[tuple[int, ...]]) -> np.ndarray:
        longest = max(map(len, ends))
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(len(ends))
        mask = self.mask.repeat(len(ends), 1)
        # Padding stands before the ends, so that the last position is the last of all.
        real = torch.tensor([[0] * (longest - len(end)) + [1] * len(end) for end in ends]).to(mask)
        embeds = self._embed([(0,) * (longest - len(end)) + end for end in ends])
        output = self.model.run_language_model(
            embeds, torch.cat((mask, real), dim=1), past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return output.logits[:, -1].float().log_softmax(dim=-1).cpu().numpy()

    def _embed(self, rows: list[tuple[int, ...]]) -> Tensor:
        table = self.model.get_input_embeddings()
        return table(torch.tensor(rows, device=table.weight.device))


class Listener:
    """Hears one utterance, whole or chunk by chunk, behind a conversation.

    Args:
        model: A model whose adapter mixes tokens behind a gate.
        settings: Weights and widths of the search.
        embeds: (1, S, width) what the LLM has read before the utterance.
        attention_mask: (1, P + S).
        cache: The LLM's cache of P positions before ``embeds``.

    Raises:
        ValueError: the adapter cannot be searched.
    """

    def __init__(
        self,
        model: Any,
        settings: HearingSettings,
        embeds: Tensor,
        attention_mask: Tensor,
        cache: Any = None,
    ):
        check_searchable(model)
        adapter = model.adapter
        self.model, self.settings, self.stride = model, settings, adapter.config.stride
        letters = None
        if adapter.letter_head is not None and settings.letter_weight:
            letters = adapter.letter_head.out_features
        expect = Expectations(model, embeds, attention_mask, cache)
        self.search = HearingSearch(settings, expect, adapter.spell, letters)

    @torch.no_grad()
    def push(self, audio: Any, row: int = 0) -> None:
        """The next vectors: a row of `FreezeOmniAudioOutput` of ``encode_audio(..., candidates=...)``."""
        count = int(audio.attention_mask[row].sum())
        gates = audio.gate_logits[row, :count].float().tolist()
        ids, log_probs = audio.likely_ids[row, :count].tolist(), audio.likely_log_probs[row, :count].tolist()
        frames = None
        if self.search.frames is not None:
            frames = audio.letter_logits[row].double().log_softmax(dim=-1).cpu().numpy()
        for place in range(count):
            own = None if frames is None else frames[place * self.stride : (place + 1) * self.stride]
            self.search.push(gates[place], ids[place], log_probs[place], own)

    def finish(self, end: int | None = None) -> Heard:
        """What was heard; see `HearingSearch.finish`."""
        return self.search.finish(end)

    @property
    def read(self) -> tuple[Any, Tensor, int]:
        """The LLM's cache, its mask, and how many of the heard tokens it has read already."""
        expect = self.search.expect
        return expect.cache, expect.mask, len(expect.settled)


def embed_heard(
    model: Any,
    settings: HearingSettings,
    input_ids: Tensor,
    attention_mask: Tensor,
    input_features: Tensor,
    feature_attention_mask: Tensor | None = None,
    task_ids: Tensor | None = None,
    cache: Any = None,
) -> tuple[Tensor, Tensor, Tensor, list[list[Heard]]]:
    """`_embed` of the model with searched tokens in the place of audio.

    Args:
        input_ids: (B, S) from the processor.
        attention_mask: (B, P + S).
        input_features, feature_attention_mask, task_ids: of all audio, as in ``forward``.
        cache: The LLM's cache of P positions; it is not changed.

    Returns:
        (B, S, width) embeddings; (B, P + S) mask that is closed where no token is heard; (B, S) boolean, the last
        vector of each chunk; what was heard, a list a row.

    Raises:
        ValueError: placeholders and audio do not match, or the adapter cannot be searched.
    """
    check_searchable(model)
    table = model.get_input_embeddings()
    places = input_ids == model.config.audio_token_id
    embeds = table(input_ids.masked_fill(places, 0))
    mask, chunk_ends = attention_mask.clone(), torch.zeros_like(places)
    audio = model.encode_audio(input_features, feature_attention_mask, candidates=settings.candidates)
    lead = model._lead_rows(len(input_features), task_ids).to(embeds)
    before = lead.shape[1]
    counts = audio.attention_mask.sum(dim=1).tolist()
    check_placeholders(int(places.sum()), sum(counts) + before * len(counts))
    past = attention_mask.shape[1] - input_ids.shape[1]
    heard: list[list[Heard]] = [[] for _ in input_ids]
    item = 0
    for row, here in enumerate(places):
        left = here.nonzero().flatten().tolist()
        while left:
            mine, left = left[: before + counts[item]], left[before + counts[item] :]
            embeds[row, mine[:before]] = lead[item]
            vectors = mine[before:]
            own = None
            if cache is not None:
                own = copy.deepcopy(cache)
                own.batch_select_indices(torch.tensor([row], device=embeds.device))
            context = slice(row, row + 1)
            start = vectors[0]
            listener = Listener(model, settings, embeds[context, :start], mask[context, : past + start], own)
            listener.push(audio, item)
            follows = mine[-1] + 1
            result = listener.finish(int(input_ids[row, follows]) if follows < input_ids.shape[1] else None)
            heard[row].append(result)
            at = torch.tensor(vectors, device=embeds.device)
            mask[row, past + at] = 0
            if result.token_ids:
                read = at[result.places]
                embeds[row, read] = table(torch.tensor(result.token_ids, device=embeds.device))
                mask[row, past + read] = attention_mask[row, past + read]
            chunk_ends[row, at[model.vectors_per_chunk - 1 :: model.vectors_per_chunk]] = True
            item += 1
    return embeds, mask, chunk_ends, heard


def check_searchable(model: Any) -> None:
    """Refuse a model whose adapter does not say what it hears."""
    config = model.config.adapter_config
    if not (config.gate and config.token_mixture):
        raise ValueError(
            "hearing_beams above 1 needs an adapter with gate=True and token_mixture=True; this one gives vectors "
            "that name no tokens. Set hearing_beams=1."
        )


__all__ = [
    "Expectations",
    "Heard",
    "HearingSearch",
    "HearingSettings",
    "LetterFrames",
    "LetterScore",
    "Listener",
    "embed_heard",
]
