# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""A turn heard bit by bit is answered as the whole of it is."""

import numpy as np
import pytest
import tiny
import torch

from freeze_omni_hf import FreezeOmniProcessor, SpokenTurn


ADAPTERS = {
    "plain": {},
    "gate": {"gate": True},
    "search": {"gate": True, "token_mixture": True, "spelling_size": 16, "letters": True},
}


@pytest.fixture(params=ADAPTERS)
def model(request):
    built = tiny.model(adapter=ADAPTERS[request.param], prompt_length=2)
    if request.param == "search":
        built.adapter.set_tokens(torch.arange(32, 126), [chr(index) for index in range(32, 126)])
        built.generation_config.hearing_beams = 3
    if request.param != "plain":
        built.adapter.gate.bias.data.fill_(0.3)
    return built


@pytest.fixture
def processor(model):
    return FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())


def test_the_answer_is_the_same(model, processor):
    """Pieces of any size, behind a written turn."""
    wave = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hi."},
    ]
    sound = {"type": "audio", "array": wave, "sampling_rate": 16000}
    inputs = processor.apply_chat_template(
        [[*messages, {"role": "user", "content": [sound]}]],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    settings = {"generation_mode": "text", "do_sample": False, "max_new_tokens": 8}
    whole = model.generate(**inputs, **settings, return_dict_in_generate=True)

    turn = SpokenTurn(model, processor, messages)
    assert turn.text is None
    for start, end in ((0, 1000), (1000, 1001), (1001, 9000), (9000, 16000)):
        turn.push(wave[start:end])
    output = model.generate(**turn.finish(), **settings, return_dict_in_generate=True)
    assert output.sequences[0, -8:].tolist() == whole.sequences[0, -8:].tolist()
    if turn.heard is None:
        assert whole.heard is None
    else:
        assert turn.heard.token_ids == whole.heard[0][0].token_ids
        assert turn.text == processor.tokenizer.decode(turn.heard.token_ids).strip()


def test_earlier_turns_are_text(model, processor):
    sound = {"type": "audio", "array": np.zeros(1600, dtype=np.float32), "sampling_rate": 16000}
    with pytest.raises(ValueError, match="as text"):
        SpokenTurn(model, processor, [{"role": "user", "content": [sound]}])
    with pytest.raises(ValueError, match="hearing_beam"):
        SpokenTurn(model, processor, hearing_beam=3)
