# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""A decoder that reads letter by letter: its place moves forward only, and stepping is what was trained."""

import pytest
import tiny
import torch

from freeze_omni_hf import FreezeOmniProcessor
from freeze_omni_hf.configuration import FreezeOmniSpeechDecoderConfig
from freeze_omni_hf.generation.speech import SpeechTokenGenerator, SpokenSegment
from freeze_omni_hf.models import FreezeOmniSpeechDecoder, SpeechDecoderCache
from freeze_omni_hf.models.reading import LONGEST_STAY, LetterReader, ReadingPlace, waits


TEXTS = ["", " the", "-", "re", "ad", ".", " it"]
SIZES = {
    "llm_hidden_size": 24,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "num_pre_layers": 1,
    "codebook_size": 32,
    "letters": True,
    "num_tokens": len(TEXTS),
}


def decoder() -> FreezeOmniSpeechDecoder:
    torch.manual_seed(0)
    made = FreezeOmniSpeechDecoder(FreezeOmniSpeechDecoderConfig(**SIZES)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    made.reader.set_tokens(TEXTS)
    return made


def classes(text: str) -> list[int]:
    return [" 'abcdefghijklmnopqrstuvwxyz".index(letter) + 1 for letter in text]


def test_tokens_are_spelled():
    reader = decoder().reader
    letters, tokens, mask = reader.spell(
        torch.tensor([[1, 3, 4, 5], [2, 6, 0, 0]]), torch.tensor([[1] * 4, [1, 1, 0, 0]])
    )
    # A token without letters has a place of its own, padding has none.
    assert letters[0].tolist() == [*classes(" theread"), 0] and tokens[0].tolist() == [0] * 4 + [1] * 2 + [2] * 2 + [3]
    assert letters[1, :4].tolist() == [0, *classes(" it")] and tokens[1, :4].tolist() == [0, 1, 1, 1]
    assert mask.sum(dim=1).tolist() == [9, 4]
    with pytest.raises(ValueError, match="num_tokens"):
        reader.set_tokens(TEXTS[:3])
    with pytest.raises(ValueError, match="letters of 7 LLM tokens, and not of token 9"):
        reader.spell(torch.tensor([[1, 9]]), torch.ones(1, 2))


def test_waits():
    assert waits(torch.tensor([[0, 0, 0, 1, 3, 3], [0, 1, 2, 2, 2, 2]])).tolist() == [
        [0, 1, 2, 0, 0, 1],
        [0, 0, 0, 1, 2, 3],
    ]


def test_configuration_names_what_is_missing():
    with pytest.raises(ValueError, match="num_tokens"):
        FreezeOmniSpeechDecoderConfig(**{**SIZES, "num_tokens": 0})
    with pytest.raises(ValueError, match="project_inputs"):
        FreezeOmniSpeechDecoderConfig(**{**SIZES, "llm_hidden_size": 32})


@torch.no_grad()
def test_teacher_forcing_equals_stepping_in_any_company():
    model = decoder()
    torch.manual_seed(1)
    ids = [torch.tensor([1, 3, 4, 5]), torch.tensor([2, 6])]
    text = [torch.randn(1, len(row), 24) for row in ids]
    hidden = torch.randn(1, 3, 24)
    caches = [model.prefill(text[n], None, hidden, None, ids[n][None]) for n in (0, 1)]
    both = SpeechDecoderCache.cat(caches)
    tokens = torch.full((2,), model.config.bos_speech_token_id)
    places, chosen, logits = [], [], []
    for _ in range(12):
        places.append(both.reading.place)
        output = model.step(tokens, both)
        alone = [model.step(tokens[n : n + 1], caches[n]) for n in (0, 1)]
        for n in (0, 1):
            torch.testing.assert_close(output.logits[n : n + 1], alone[n].logits, rtol=1e-4, atol=1e-4)
        both, caches = output.cache, [step.cache for step in alone]
        logits.append(output.logits[:, 0])
        tokens = output.logits[:, 0, : model.config.codebook_size].argmax(dim=-1)
        chosen.append(tokens)
    places = torch.stack([*places, both.reading.place], dim=1)
    assert places.max() > 3 and (places[:, 1:] >= places[:, :-1]).all()
    labels = torch.stack(chosen, dim=1)
    for n in (0, 1):
        forced = model(
            text[n], None, hidden, None, labels=labels[n : n + 1], text_ids=ids[n][None],
            places=places[n : n + 1], return_dict=True,
        )  # fmt: skip
        size = model.config.codebook_size
        torch.testing.assert_close(
            forced.logits[0, :12, :size], torch.stack(logits)[:, n, :size], rtol=1e-3, atol=1e-3
        )
        assert forced.move_loss > 0
        # Another place is another sound.
        other = model(
            text[n], None, hidden, None, labels=labels[n : n + 1], text_ids=ids[n][None],
            places=torch.zeros_like(places[n : n + 1]), return_dict=True,
        )  # fmt: skip
        assert not torch.allclose(other.logits, forced.logits, atol=1e-2)
    restored = caches[0].load_state_dict(caches[0].state_dict())
    assert torch.equal(restored.reading.place, caches[0].reading.place)


def test_what_is_missing_is_named():
    model, text = decoder(), torch.zeros(1, 2, 24)
    with pytest.raises(ValueError, match="text_ids"):
        model.prefill(text)
    with pytest.raises(ValueError, match="places"):
        model(text, labels=torch.tensor([[1, 2]]), text_ids=torch.tensor([[1, 3]]))


def reading(place: int, waited: int = 0, stay: float = 1.0, count: int = 5) -> ReadingPlace:
    value = torch.tensor
    return ReadingPlace(torch.zeros(1, count, 4), value([count]), value([place]), value([waited]), value([stay]))


def test_the_place_moves_when_it_is_likelier_to_have_moved():
    reader = LetterReader(4, 1)
    with torch.no_grad():
        reader.move_head.weight.zero_()
        # Chances of 0, 1, 2, 3 letters: 0.7, 0.1, 0.2, 0.
        reader.move_head.bias.copy_(torch.tensor([0.7, 0.1, 0.2, 1e-9]).log())
    state = reader.move(torch.zeros(1, 4), reading(0))
    assert (int(state.place), int(state.waited)) == (0, 1) and float(state.stay) == pytest.approx(0.7)
    state = reader.move(torch.zeros(1, 4), state)  # 0.49: it has likely moved, and most likely by two
    assert (int(state.place), int(state.waited), float(state.stay)) == (2, 0, 1.0)
    assert int(reader.move(torch.zeros(1, 4), reading(4, stay=0.1)).place) == 4
    assert int(reader.move(torch.zeros(1, 4), reading(1, waited=LONGEST_STAY - 1)).place) == 3


def test_a_text_is_said_to_its_end_and_no_further():
    reader, logits = LetterReader(4, 1), torch.zeros(1, 1, 6)
    held = reader.hold(logits, reading(3), 5)
    assert held[0, 0, 5] == -torch.inf and held[0, 0, :5].isfinite().all()
    assert torch.equal(reader.hold(logits, reading(4), 5), logits)
    assert reader.hold(logits, reading(4, waited=LONGEST_STAY), 5)[0, 0].isfinite().tolist() == [False] * 5 + [True]


def test_generation_reads_every_letter():
    """Of rows of different length in one batch, each is said to its end; the same row alone gives the same tokens."""
    model = decoder()
    table = torch.nn.Embedding(len(TEXTS), 24)
    settings = tiny.model().generation_config
    settings.speech_max_tokens = 2000

    def speak(*rows):
        pieces = [SpokenSegment(0, None, torch.tensor(row), torch.zeros(2, 24)) for row in rows]
        SpeechTokenGenerator(model, table, settings, sample=False).speak(pieces)
        return pieces

    long, short = speak([1, 3, 4, 6, 5], [2, 6])
    assert long.finish_reason == short.finish_reason == "end"
    assert len(long.speech_tokens) >= 3 and len(short.speech_tokens) >= 1
    assert torch.equal(speak([2, 6])[0].speech_tokens, short.speech_tokens)


def test_whole_model_speaks_with_letters(tmp_path):
    model = tiny.model(decoder={"letters": True, "num_tokens": 259, "project_inputs": True})
    processor = FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())
    model.speech_decoder.reader.set_tokens(processor.tokenizer.batch_decode([[token] for token in range(259)]))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, language_model=model.language_model)
    assert torch.equal(again.speech_decoder.reader.token_letters, model.speech_decoder.reader.token_letters)
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": "Hi"}]], tokenize=True, return_dict=True, add_generation_prompt=True,
        return_tensors="pt",
    )  # fmt: skip
    settings = {"max_new_tokens": 12, "speech_max_tokens": 400, "do_sample": False, "return_dict_in_generate": True}
    found = [m.generate(**inputs, tokenizer=processor.tokenizer, **settings) for m in (model, again)]
    assert torch.equal(found[0].audio[0], found[1].audio[0]) and len(found[0].audio[0]) > 0
