# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Hearing by search, against sums over all paths, the LLM read directly, and the same words as text."""

from itertools import product

import numpy as np
import pytest
import tiny
import torch

from freeze_omni_hf import FreezeOmniProcessor, state_hash
from freeze_omni_hf.generation.listening import (
    Expectations,
    HearingSearch,
    HearingSettings,
    LetterFrames,
    LetterScore,
    Listener,
)
from freeze_omni_hf.models.letters import CHARACTERS, letter_classes


FIRST, SECOND = 65, 66


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(c for i, c in enumerate(path) if c and (i == 0 or path[i - 1] != c))


def all_paths(frames: np.ndarray) -> dict[tuple[int, ...], float]:
    """Log-probability of every sequence, summed over all paths one by one."""
    sums: dict[tuple[int, ...], float] = {}
    for path in product(range(frames.shape[1]), repeat=len(frames)):
        key = collapsed(path)
        value = sum(frames[t, c] for t, c in enumerate(path))
        sums[key] = np.logaddexp(sums.get(key, -np.inf), value)
    return sums


def random_frames(count: int, classes: int, seed: int = 0) -> np.ndarray:
    return torch.log_softmax(
        2 * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), -1
    ).numpy()


@pytest.mark.parametrize("said", [(2,), (2, 3), (2, 2), (3, 2, 2), (2, 3, 2)])
@pytest.mark.parametrize("cut", [0, 2, 6])
def test_letter_scores_are_sums_over_all_paths(said, cut):
    """Whether letters come before or after the frames; each frame is measured against its likeliest class."""
    frames = random_frames(6, 4)
    letters = LetterFrames(4)
    letters.add(frames[:cut])
    score = LetterScore(letters).extended(said[:1])
    score.advance(letters.add(frames[cut:]))
    score = score.extended(said[1:])
    least = np.concatenate(([0.0], np.cumsum(frames.max(axis=1))))
    assert score.whole == pytest.approx(all_paths(frames)[said] - least[-1])
    # The beginning is complete at some frame; what comes behind it costs nothing.
    begun = [
        sum(np.exp(value) for key, value in all_paths(frames[:count]).items() if key[: len(said)] == said)
        for count in range(7)
    ]
    expected = np.log(np.sum(np.diff(begun) * np.exp(-least[1:])))
    assert score.prefix == pytest.approx(expected)


def test_spaces_count_once():
    letters = LetterFrames(4)
    letters.add(random_frames(5, 4))
    assert LetterScore(letters).extended((1, 2, 1, 1, 3)).classes.tolist() == [2, 1, 3]


def test_letters_of_tokens_spell_their_text():
    rows = letter_classes([" don’t", "yes-man", ".", "Ab", " "])
    spelled = ["".join(CHARACTERS[c - 1] for c in row.tolist() if c) for row in rows]
    assert spelled == [" don't", "yes man", "", "ab", ""]


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_search_finds_the_best_of_all(seed):
    """Gate, tokens, expectations and bonus, over every sequence of two tokens in five vectors."""
    generator = np.random.default_rng(seed)
    gates, tokens = generator.normal(size=5), random_frames(5, 2, seed)
    expected = random_frames(64, 3, seed + 9)

    def row(prefix: tuple[int, ...]) -> np.ndarray:
        return expected[hash(prefix) % 64]

    settings = HearingSettings(beams=200, llm_weight=0.7, token_bonus=0.4, margin=np.inf)
    search = HearingSearch(settings, lambda prefixes: np.stack([row(prefix) for prefix in prefixes]))
    for gate, log_probs in zip(gates, tokens, strict=True):
        search.push(gate, (0, 1), log_probs, None)
    heard = search.finish(end=2)

    nothing = -np.logaddexp(0, gates)[:, None]
    frames = np.concatenate((nothing, tokens - np.logaddexp(0, -gates)[:, None]), axis=1)
    best = max(
        (
            value
            + sum(0.7 * row(ids[:i])[token] + 0.4 for i, token in enumerate(ids))
            + 0.7 * row(ids)[2],
            ids,
        )
        for ids, value in ((tuple(c - 1 for c in key), value) for key, value in all_paths(frames).items())
    )  # fmt: skip
    assert (heard.score, tuple(heard.token_ids)) == (pytest.approx(best[0]), best[1])
    assert heard.places == sorted(set(heard.places))


def test_spelling_decides_between_words_that_sound_alike():
    """Two tokens as likely as each other; the letters say which."""
    letters = np.log(np.full((8, 29), 1e-4))
    for place, character in enumerate("cab"):
        letters[2 * place, CHARACTERS.index(character) + 1] = -0.01
        letters[2 * place + 1, 0] = -0.01
    letters[6:, 0] = -0.01
    spell = {0: "bad", 1: "cab"}
    search = HearingSearch(
        HearingSettings(beams=4),
        lambda prefixes: np.zeros((len(prefixes), 3)),
        lambda token: [CHARACTERS.index(c) + 1 for c in spell[token]],
        29,
    )
    search.push(-9.0, (0, 1), np.log([0.5, 0.5]), letters[:4])
    search.push(4.0, (0, 1), np.log([0.5, 0.5]), letters[4:])
    heard = search.finish()
    assert heard.token_ids == [1] and heard.places == [1]


@pytest.fixture
def model():
    built = tiny.model(
        adapter={"gate": True, "token_mixture": True, "spelling_size": 16, "letters": True}, prompt_length=2
    )
    built.adapter.set_tokens(torch.arange(32, 126), [chr(index) for index in range(32, 126)])
    built.adapter.gate.bias.data.fill_(0.3)
    return built


@pytest.fixture
def processor(model):
    return FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())


def sound(seconds: float, seed: int) -> dict:
    wave = 0.1 * np.random.default_rng(seed).standard_normal(int(16000 * seconds)).astype(np.float32)
    return {"type": "audio", "array": wave, "sampling_rate": 16000}


def inputs_of(processor, *chats):
    return processor.apply_chat_template(
        list(chats), tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True, padding=True
    )


def test_expectations_are_the_llms(model):
    """Shared beginnings are read once; what is expected is the same as if each were read whole."""
    embed = model.get_input_embeddings()
    context = torch.tensor([[5, 9, 33]])
    before = state_hash(model.language_model)
    expect = Expectations(model, embed(context), torch.ones(1, 3, dtype=torch.long))
    for prefixes in ([()], [(), (7,)], [(7, 8), (7,), (7, 9, 4)], [(7, 9, 4), (7, 9)], [(7, 9, 4, 1)]):
        rows = expect(prefixes)
        for prefix, row in zip(prefixes, rows, strict=True):
            ids = torch.cat((context, torch.tensor([prefix], dtype=torch.long)), dim=1)
            direct = model.language_model(ids).logits[0, -1].log_softmax(-1)
            np.testing.assert_allclose(row, direct.detach().numpy(), atol=2e-4)
    assert expect.settled == (7, 9, 4, 1)
    assert state_hash(model.language_model) == before


def test_chunk_by_chunk_is_the_whole_utterance(model, processor):
    extractor = processor.feature_extractor
    features = extractor(sound(1.0, 0)["array"], sampling_rate=16000, return_tensors="pt")
    embeds, mask = model.get_input_embeddings()(torch.tensor([[5, 9, 33]])), torch.ones(1, 3, dtype=torch.long)
    results = []
    for chunks in (False, True):
        listener = Listener(model, HearingSettings(beams=4), embeds, mask)
        if chunks:
            cache, step = None, extractor.chunk_frames
            frames = features["input_features"]
            for start in range(0, frames.shape[1], step):
                audio = model.encode_audio(frames[:, start : start + step], cache=cache, use_cache=True, candidates=20)
                cache = audio.cache
                listener.push(audio)
        else:
            listener.push(model.encode_audio(**features, candidates=20))
        results.append(listener.finish(end=258))
    assert results[0].token_ids and results[0].token_ids == results[1].token_ids
    assert results[0].score == pytest.approx(results[1].score, abs=1e-3)


def test_what_is_heard_is_answered_as_if_it_had_been_written(model, processor):
    """Two rows of different length, one with two utterances; and with the first turn in the cache."""
    model.prompt_embeddings = None
    model.config.prompt_length = 0
    processor = FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())
    chats = [
        [{"role": "user", "content": [sound(1.0, 1)]}],
        [
            {"role": "user", "content": [sound(0.5, 2)]},
            {"role": "assistant", "content": "ok"},
            {"role": "user", "content": [sound(0.8, 3)]},
        ],
    ]
    settings = {"hearing_beams": 3, "generation_mode": "text", "do_sample": False, "max_new_tokens": 6}
    output = model.generate(**inputs_of(processor, *chats), **settings, return_dict_in_generate=True)
    assert [len(row) for row in output.heard] == [1, 2] and all(item.token_ids for row in output.heard for item in row)
    for row, chat in enumerate(chats):
        inputs = inputs_of(processor, chat)
        ids, heard = [], iter(output.heard[row])
        places = (inputs["input_ids"][0] == model.config.audio_token_id).tolist()
        for index, token in enumerate(inputs["input_ids"][0].tolist()):
            if not places[index]:
                ids.append(token)
            elif not places[index - 1]:
                ids += next(heard).token_ids
        written = model.generate(torch.tensor([ids]), **settings)
        assert output.sequences[row, -6:].tolist() == written[0, -6:].tolist()
        assert [h.token_ids for h in model.hear(**inputs, hearing_beams=3)[0]] == [
            h.token_ids for h in output.heard[row]
        ]


def test_an_earlier_turn_in_the_cache_is_left_as_it_was(model, processor):
    inputs = inputs_of(processor, [{"role": "user", "content": [sound(0.8, 4)]}])
    context = torch.tensor([[5, 9, 33]])
    cache = model.language_model(context, use_cache=True)
    cache = cache.cache if "cache" in cache else cache.past_key_values
    mask = torch.cat((torch.ones_like(context), inputs.pop("attention_mask")), dim=1)
    heard = model.hear(**inputs, attention_mask=mask, past_key_values=cache, hearing_beams=3)[0][0]
    assert cache.get_seq_length() == 3
    whole = {**inputs, "input_ids": torch.cat((context, inputs["input_ids"]), dim=1)}
    assert model.hear(**whole, hearing_beams=3)[0][0].token_ids == heard.token_ids


def test_silence_is_nothing_heard(model, processor):
    model.adapter.gate.weight.data.zero_()
    model.adapter.gate.bias.data.fill_(-20.0)
    inputs = inputs_of(processor, [{"role": "user", "content": [sound(0.5, 5)]}])
    output = model.generate(
        **inputs, hearing_beams=4, generation_mode="text", max_new_tokens=2, return_dict_in_generate=True
    )
    assert output.heard[0][0].token_ids == [] and output.sequences.shape[1] == inputs["input_ids"].shape[1] + 2


def test_an_adapter_that_names_no_tokens_is_refused(processor):
    plain = tiny.model(prompt_length=2)
    inputs = inputs_of(processor, [{"role": "user", "content": [sound(0.5, 5)]}])
    with pytest.raises(ValueError, match="hearing_beams=1"):
        plain.generate(**inputs, hearing_beams=4, generation_mode="text")
    with pytest.raises(ValueError, match="hearing_letter_weight"):
        plain.generate(**inputs, hearing_letter_weight=-1.0)
