# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Where an answer is cut into pieces, and how a piece is cleaned."""

import sys

import pytest
import tiny
import torch
from golden_data import facts, tensors

from freeze_omni_hf.generation import (
    FreezeOmniGenerationConfig,
    Segmenter,
    clean_released,
    segment_token_ids,
    segmentation,
)
from freeze_omni_hf.generation.sampling import ExclusiveTopPLogitsWarper, penalise_recent
from freeze_omni_hf.generation.segmentation import CLEANERS, IncrementalText


TOKENIZER = tiny.tokenizer()


@pytest.mark.parametrize(("raw", "cleaned"), [tuple(case) for case in facts()["post_process"]])
def test_reference_cleaning(raw, cleaned):
    assert clean_released(raw) == cleaned


def test_reference_text_sampling():
    golden = tensors()
    for index, (temperature, top_k, top_p) in enumerate(facts()["unit.sampling.cases(temperature,top_k,top_p)"]):
        scores = golden["unit.sampling.logits"][0] / temperature
        if top_k:
            scores = scores.masked_fill(scores < scores.topk(top_k).values[:, -1:], -torch.inf)
        if top_p > 0:
            scores = ExclusiveTopPLogitsWarper(top_p)(None, scores)
        torch.testing.assert_close(scores.softmax(-1)[0], golden[f"unit.sampling.probs.{index}"], atol=1e-6, rtol=1e-5)


def pieces(text: str, with_tokenizer: bool = True, **settings) -> list[str]:
    """The pieces of a text that comes byte by byte."""
    config = FreezeOmniGenerationConfig(**segment_token_ids(TOKENIZER), **settings)
    segmenter = Segmenter(config, 0, TOKENIZER if with_tokenizer else None)
    ids = TOKENIZER(text)["input_ids"]
    found = [segment for token in ids for segment in segmenter.push(token)] + segmenter.finish()
    assert [segment.start for segment in found[1:]] == [segment.end for segment in found[:-1]]
    assert found[-1].end == len(ids)
    decoded = [TOKENIZER.decode(ids[segment.start : segment.end]) for segment in found]
    if with_tokenizer:
        assert [segment.text for segment in found] == decoded
    return decoded


@pytest.mark.parametrize("with_tokenizer", [True, False])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there. How are you?", ["Hello there.", " How are you?"]),
        ("Pi is 3.14 or so! Yes", ["Pi is 3.14 or so!", " Yes"]),
        ("One, two, three.", ["One, two, three."]),
        ("One\ntwo", ["One\n", "two"]),
        ("no border", ["no border"]),
        ("What?! Really.", ["What?", "!", " Really."]),
        (".x", [".x"]),
    ],
)
def test_sentences(text, expected, with_tokenizer):
    assert pieces(text, with_tokenizer) == expected


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_short_first_piece_ends_at_a_clause(with_tokenizer):
    text = "Well, yes, and then we all went home, tired. Bye now."
    # The second comma is too early in its piece, the third comes after twenty tokens.
    expected = ["Well, yes,", " and then we all went home,", " tired. Bye now."]
    assert pieces(text, with_tokenizer, segment_policy="short_first", segment_min_tokens=8) == expected


def test_short_first_piece_ends_between_words():
    text = "This sentence has no comma at all and goes on"
    found = pieces(text, segment_policy="short_first", segment_first_max_tokens=10)
    assert found == ["This sentence", " has no comma at all and goes on"]


def test_characters_of_several_bytes_come_whole():
    text = IncrementalText(TOKENIZER)
    ids = TOKENIZER("a€b")["input_ids"]
    assert len(ids) == 5
    assert [text.push(token) for token in ids] == ["a", "", "", "€", "b"]
    broken = IncrementalText(TOKENIZER)
    assert [broken.push(ids[1]), broken.finish()] == ["", "\ufffd"]
    assert pieces("价格是三元。好") == ["价格是三元。", "好"]


def test_penalties():
    logits = torch.tensor([[2.0, -2.0, 4.0]])
    history = torch.tensor([[0, 1, 0]])
    released = penalise_recent(logits, history, 3, 2.0, "released")
    assert released.tolist() == [[0.5, -1.0, 4.0]]
    standard = penalise_recent(logits, history, 3, 2.0, "standard")
    assert standard.tolist() == [[1.0, -4.0, 4.0]]
    assert penalise_recent(logits, history, -1, 2.0, "released") is logits
    assert penalise_recent(logits, history, 1, 2.0, "standard").tolist() == [[1.0, -2.0, 4.0]]


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("The capital of France is Paris.", "The capital of France is Paris."),
        (" and it has 50 states", " and it has fifty states"),
        ("It was 1945.", "It was nineteen forty five."),
        ("It costs $12.50 & weighs 5 kg.", "It costs twelve point five dollars and weighs five kilograms."),
        ("**Paris** is `nice`.", "Paris is nice."),
        ("snake_case", "snake case"),
        ("See [the docs](https://example.com/x).", "See the docs."),
        ("Dr. Smith went home.", "doctor Smith went home."),
    ],
)
def test_what_is_read_out(written, spoken):
    pytest.importorskip("wetext")
    assert CLEANERS["spoken"](written) == spoken


def test_reading_out_without_its_library_names_the_cure(monkeypatch):
    """An answer is not lost for it."""
    monkeypatch.setitem(sys.modules, "wetext", None)
    segmentation._spoken_forms.cache_clear()
    warnings = []
    monkeypatch.setattr(segmentation.logger, "warning", warnings.append)
    assert CLEANERS["spoken"]("No numbers here.") == "No numbers here." and not warnings
    assert CLEANERS["spoken"]("7 numbers *here*.") == "7 numbers here."
    assert CLEANERS["spoken"]("8 of them.") == "8 of them."
    (warning,) = warnings
    assert "freeze-omni-hf[speak]" in warning
    segmentation._spoken_forms.cache_clear()
