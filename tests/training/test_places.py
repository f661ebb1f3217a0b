# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""When each letter is said: alignment against every possible path, times of tokens, and pieces of rows."""

import itertools

import numpy as np
import pytest
import tiny
import torch

from freeze_omni_hf import FreezeOmniProcessor
from freeze_omni_hf.models import FreezeOmniCodec
from freeze_omni_hf.models.letters import character_ids
from freeze_omni_hf.models.reading import MOST_LETTERS, LetterReader
from freeze_omni_hf.training.codec import PhoneticHead
from freeze_omni_hf.training.data import DataError
from freeze_omni_hf.training.places import align_letters, cut_text, letter_times, places_of
from freeze_omni_hf.training.speaking import FreezeOmniForSpeaking, LetterPlacer, SpeakingCollator, encode_rows


def best_path(scores: torch.Tensor, letters: list[int]) -> tuple[int, ...]:
    """The likeliest of all paths that CTC reads as the letters, by trying them all."""
    steps, classes = scores.shape
    best = (-np.inf, ())
    for path in itertools.product(range(classes), repeat=steps):
        read = [label for label, _ in itertools.groupby(path) if label]
        if read == letters:
            best = max(best, (float(sum(scores[step, label] for step, label in enumerate(path))), path))
    return best[1]


@pytest.mark.parametrize("letters", [[1, 1, 2], [1, 2], [3], [2, 1, 2]])
def test_alignment_is_the_likeliest_of_all_paths(letters):
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(sum(letters))).log_softmax(dim=-1)
    groups, place = [], 0
    for label, run in itertools.groupby(best_path(scores, letters)):
        size = len(list(run))
        if label:
            groups.append(range(place, place + size)[size // 2])
        place += size
    assert align_letters(scores, letters) == groups


def test_text_that_does_not_fit_has_no_times():
    scores = torch.zeros(3, 29)
    assert align_letters(scores, [5, 5]) is not None
    assert align_letters(scores, [5, 5, 5]) is None and align_letters(scores, []) is None


def test_times_of_tokens():
    text = character_ids("so-so it")
    times = [10, 12, 14, 16, 18, 20, 22, 24]
    # "so", "-", "so", " it", ".": the space that stands for the hyphen has no token.
    classes = [*character_ids("so"), 0, *character_ids("so"), 1, *character_ids("it"), 0]
    found = letter_times(classes, text, times, 40)
    assert found.tolist() == [10, 12, 14, 16, 18, 20, 22, 24, 32]
    assert letter_times(character_ids("sq"), text, times, 40) is None
    assert letter_times(character_ids("so"), text, times, 40) is None, "letters are left over"
    assert letter_times([*classes, 3], text, times, 40) is None


def test_places_only_move_forward():
    assert places_of(np.array([1.0, 3.0, 6.0]), 8) == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    far = places_of(np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 4.0]), 5)
    assert far[0] == 0 and max(np.diff(far)) == MOST_LETTERS and far[-1] == 7


def test_pieces_are_sentences_and_beginnings():
    text = "One two three four five. And then? Yes"
    seen = {tuple(cut_text(text, np.random.default_rng(seed), (2, 2))) for seed in range(20)}
    parts = {tuple(text[start:end] for start, end in pieces) for pieces in seen}
    assert parts == {
        ("One two three four five.", " And then?", " Yes"),
        ("One two", " three four five.", " And then?", " Yes"),
    }
    assert cut_text("3.14 is pi", np.random.default_rng(0), (9, 9)) == [(0, 10)]


@pytest.fixture
def processor():
    return FreezeOmniProcessor.from_model_config(tiny.config(), tiny.tokenizer())


@pytest.fixture
def reader(processor):
    made = LetterReader(16, 259)
    made.set_tokens(processor.tokenizer.batch_decode([[token] for token in range(259)]))
    return made


def row(text: str, **more) -> dict:
    """Each letter is said for two speech tokens, whose ids count up."""
    count = len(character_ids(text))
    return {
        "id": text, "text": text, "spoken": text, "letter_times": list(range(1, 2 * count, 2)),
        "speech_tokens": list(range(2 * count + 2)),
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                     {"role": "assistant", "content": [{"type": "text", "text": text}]}],
        **more,
    }  # fmt: skip


def test_collator_says_which_letter_is_said(processor, reader):
    (example,) = [row("ab c.")]
    batch = SpeakingCollator(processor, reader=reader)([example])
    assert batch["labels"].tolist() == [list(range(10))]
    # a, b, space and c twice each, and the full stop takes the rest.
    assert batch["places"].tolist() == [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]]


def test_pieces_are_text_tokens_and_states_of_one_place(processor, reader):
    """A piece of a row is its text, the tokens said at it, and the hidden states of its own LLM tokens."""
    example, seen = row("Oh no. Yes it is."), set()
    collate = SpeakingCollator(processor, conversation=True, reader=reader, cut=True)
    for collate.epoch in range(12):
        batch = collate([example])
        text = processor.tokenizer.decode(batch["text_ids"][0])
        seen.add(text)
        start, length = int(batch["answer_start"]), int(batch["answer_length"])
        assert processor.tokenizer.decode(batch["input_ids"][0, start : start + length]) == text
        tokens, places = batch["labels"][0].tolist(), batch["places"][0].tolist()
        assert tokens == list(range(tokens[0], tokens[0] + len(tokens))) and len(places) == len(tokens) + 1
        if text == " Yes it is.":
            before = len(character_ids("Oh no"))
            assert tokens[0] == 2 * before and tokens[-1] == len(example["speech_tokens"]) - 1
            assert places[0] == 0 and places[3:6] == [1, 2, 2] and places[-1] == len(text) - 1
    assert seen == {"Oh no.", " Yes it is."}
    # Where it is read out in other words, it stays whole.
    other = row("I have 7. It is.", spoken="I have seven. It is.", letter_times=None)
    other["letter_times"] = list(range(len(character_ids(other["spoken"]))))
    assert processor.tokenizer.decode(collate([other])["text_ids"][0]) == other["spoken"]


def test_letters_and_hidden_states_are_trained_together(processor, reader):
    """A piece with its states gives the decoder what `generate` gives it."""
    model = tiny.model(decoder={"letters": True, "num_tokens": 259, "project_inputs": True}, prompt_length=0).eval()
    model.speech_decoder.reader.token_letters = reader.token_letters
    example = row("ab c.", speech_tokens=[3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
    batch = SpeakingCollator(processor, conversation=True, reader=reader)([example])
    found = FreezeOmniForSpeaking(model, use_hidden_states=True).eval()(**batch)
    table, ids = model.get_input_embeddings(), batch["input_ids"]
    states = model.run_language_model(table(ids), torch.ones_like(ids)).hidden_states[-1]
    start, length = int(batch["answer_start"]), int(batch["answer_length"])
    expected = model.speech_decoder(
        table(batch["text_ids"]), None, states[:, start - 1 : start - 1 + length], None,
        labels=batch["labels"], text_ids=batch["text_ids"], places=batch["places"], return_dict=True,
    )  # fmt: skip
    torch.testing.assert_close(found.loss, expected.loss)


def test_rows_whose_letters_have_no_place_are_named(processor, reader):
    collate = SpeakingCollator(processor, reader=reader)
    batch = collate([row("abc"), row("de", letter_times=None), row("fg", letter_times=[1])])
    assert len(batch["labels"]) == 1
    assert "encode_speech" in collate.report.skipped["de"] and "fit" in collate.report.skipped["fg"]
    with pytest.raises(DataError, match="whole batch"):
        collate([row("de", letter_times=None)])


def test_letters_are_placed_by_the_codec_s_phonetic_head(processor, reader):
    codec = FreezeOmniCodec(tiny.config().codec_config).eval()
    head = PhoneticHead(codec.config.latent_size).eval()
    wave = 0.1 * np.random.default_rng(0).standard_normal(24000).astype(np.float32)
    placer = LetterPlacer(codec, head, lambda text: text.replace("7", "seven"))
    (found,) = encode_rows(codec, [({"id": "x", "audio": b"", "text": "I see 7"}, wave)], placer)
    assert found["spoken"] == "I see seven"
    times = found["letter_times"]
    assert len(times) == len(character_ids("I see seven")) and sorted(set(times)) == times and times[-1] < 40
    vectors = codec.quantizer.embed(torch.tensor(found["speech_tokens"])[None, :, None])
    scores = head(vectors)[0].detach().log_softmax(dim=-1)
    assert times == align_letters(scores, character_ids("I see seven"))


def test_training_learns_where_it_is(processor):
    """The loss on a few rows falls, and the place is then found without being told."""
    model = tiny.model(decoder={"letters": True, "num_tokens": 259, "project_inputs": True}, prompt_length=0)
    model.speech_decoder.reader.set_tokens(processor.tokenizer.batch_decode([[token] for token in range(259)]))
    torch.manual_seed(0)
    for parameter in model.speech_decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    rows = [row(text, speech_tokens=[ord(letter) % 32 for letter in text.lower() for _ in "ab"] + [0, 0])
            for text in ("abcd", "dcba", "bad cab")]  # fmt: skip
    stage = FreezeOmniForSpeaking(model).train()
    batch = SpeakingCollator(processor, reader=model.speech_decoder.reader)(rows)
    optimizer = torch.optim.Adam(model.speech_decoder.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        output = stage(**batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < 0.2 * losses[0] and set(stage.figures()) == {"token", "move"}
    decoder, table = model.speech_decoder.eval(), model.get_input_embeddings()
    ids = batch["text_ids"][:1, :4]
    cache, said = decoder.prefill(table(ids), text_ids=ids), []
    token = torch.tensor([decoder.config.bos_speech_token_id])
    for _ in range(30):
        output = decoder.step(token, cache)
        cache, token = output.cache, output.logits[:, 0].argmax(dim=-1)
        if token == decoder.config.eos_speech_token_id:
            break
        said.append(int(token))
    assert said == rows[0]["speech_tokens"]
