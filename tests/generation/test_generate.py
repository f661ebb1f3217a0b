# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""``generate``: equal to a plain loop, rows alone, streaming; options and errors."""

import pytest
import tiny
import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from freeze_omni_hf import (
    AudioIteratorStreamer,
    AudioStreamer,
    FreezeOmniGenerationConfig,
    FreezeOmniProcessor,
    generate_in_thread,
)
from freeze_omni_hf.generation import segment_token_ids


GREEDY = {"do_sample": False, "return_dict_in_generate": True, "speech_max_tokens": 45, "max_new_tokens": 14}


@pytest.fixture(scope="module")
def model():
    built = tiny.model()
    tokenizer = tiny.tokenizer()
    settings = built.generation_config
    for name, ids in segment_token_ids(tokenizer).items():
        setattr(settings, name, ids)
    settings.eos_token_id, settings.pad_token_id = 258, 256
    # Random weights rarely end a sentence: let some common ids of this model stand for borders.
    settings.segment_border_token_ids = list(range(0, 250, 4))
    return built


@pytest.fixture(scope="module")
def processor(model):
    return FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())


def question(seconds: float, seed: int = 0, text: str = "") -> list[dict]:
    torch.manual_seed(seed)
    sound = {"type": "audio", "array": torch.randn(int(16000 * seconds)).numpy() * 0.1, "sampling_rate": 16000}
    return [{"role": "user", "content": [{"type": "text", "text": text}, sound]}]


def inputs_of(processor, chats) -> dict:
    return dict(processor.apply_chat_template(chats, tokenize=True, return_dict=True, add_generation_prompt=True))


@pytest.fixture(scope="module")
def inputs(processor):
    return inputs_of(processor, [question(0.5), question(1.3, 1, "hello there"), question(0.2, 2)])


def new_tokens(output, inputs):
    return output.sequences[:, inputs["input_ids"].shape[1] :]


@torch.no_grad()
def test_text_equals_a_plain_loop_without_cache(model, processor):
    inputs = inputs_of(processor, question(0.6))
    output = model.generate(**inputs, **GREEDY, generation_mode="text", output_logits=True)
    embeds, _ = model.prepare_inputs_embeds(
        inputs["input_ids"], inputs["input_features"], inputs["feature_attention_mask"]
    )
    for index, token in enumerate(new_tokens(output, inputs)[0]):
        result = model.language_model(inputs_embeds=embeds, output_hidden_states=True)
        torch.testing.assert_close(output.logits[index][0], result.logits[0, -1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            output.hidden_states[0, index], result.hidden_states[-1][0, -1], atol=1e-4, rtol=1e-4
        )
        assert int(result.logits[0, -1].argmax()) == int(token)
        embeds = torch.cat((embeds, model.get_input_embeddings()(token[None, None])), dim=1)


@pytest.mark.parametrize("policy", ["sentence", "short_first"])
def test_padded_batch_equals_rows_alone(model, processor, inputs, policy):
    settings = {**GREEDY, "segment_policy": policy, "speech_batch_size": 3}
    together = model.generate(**inputs, **settings)
    assert max(len(row) for row in together.segments) > 1, "the test needs a row of several pieces"
    chats = [question(0.5), question(1.3, 1, "hello there"), question(0.2, 2)]
    for row, chat in enumerate(chats):
        alone_inputs = inputs_of(processor, chat)
        alone = model.generate(**alone_inputs, **settings)
        tokens = new_tokens(alone, alone_inputs)[0]
        assert torch.equal(new_tokens(together, inputs)[row, : len(tokens)], tokens)
        assert torch.equal(together.speech_tokens[row], alone.speech_tokens[0])
        torch.testing.assert_close(together.audio[row], alone.audio[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(together.state_logits[row], alone.state_logits[0], atol=1e-4, rtol=1e-4)
        assert len(alone.audio[0]) == 600 * len(alone.speech_tokens[0]) > 0


@pytest.mark.parametrize("across", [False, True])
def test_streamed_sound_equals_the_whole(model, inputs, across):
    """Piece by piece, and as one sound without joins."""
    settings = {**GREEDY, "codec_overlap": model.codec.context_tokens, "codec_across_segments": across}
    whole = model.generate(**inputs, **settings)
    pieces: dict[int, list] = {0: [], 1: [], 2: []}
    listener = AudioStreamer(lambda chunk: pieces[chunk.row].append(chunk.samples))
    streamed = model.generate(
        **inputs,
        **settings,
        codec_first_chunk_size=5,
        codec_chunk_size=12,
        audio_streamer=listener,
    )
    assert torch.equal(streamed.sequences, whole.sequences)
    for row in range(3):
        assert torch.equal(streamed.speech_tokens[row], whole.speech_tokens[row])
        torch.testing.assert_close(streamed.audio[row], whole.audio[row], atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.cat(pieces[row]), whole.audio[row], atol=1e-5, rtol=0)
        spoken = [piece.speech_tokens for piece in whole.segments[row]]
        assert len(spoken) > 1 or row
        parts = [torch.cat(spoken)] if across else spoken
        sound = torch.cat([model.codec.decode(tokens[None]).audio_values[0] for tokens in parts])
        torch.testing.assert_close(whole.audio[row], sound, atol=1e-5, rtol=0)
    assert len(pieces[0]) > 2
    assert streamed.timings["first_sound"] > 0 and {"text", "codec", "speech_decoder"} <= set(streamed.timings)


def test_iterators_in_a_thread(model, processor):
    inputs = inputs_of(processor, question(0.4))
    text = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    sound = AudioIteratorStreamer(timeout=60)
    thread = generate_in_thread(model.generate, **inputs, **GREEDY, streamer=text, audio_streamer=sound)
    samples = torch.cat([chunk.samples for chunk in sound])
    written = "".join(text)
    output = thread.result()
    torch.testing.assert_close(samples, output.audio[0])
    assert written == processor.batch_decode(new_tokens(output, inputs))[0]
    failing = AudioIteratorStreamer(timeout=60)
    thread = generate_in_thread(model.generate, **inputs, num_beams=4, audio_streamer=failing)
    assert list(failing) == []
    with pytest.raises(ValueError, match="num_beams=4"):
        thread.result()


def test_what_comes_back(model, inputs):
    sequences, audio = model.generate(**inputs, max_new_tokens=3, do_sample=False, speech_max_tokens=5)
    assert sequences.shape[0] == len(audio) == 3
    text = model.generate(**inputs, max_new_tokens=3, do_sample=False, generation_mode="text")
    assert torch.equal(text, sequences)
    silent = tiny.model(voice=False)
    assert isinstance(silent.generate(**inputs, max_new_tokens=3, do_sample=False), torch.Tensor)
    with pytest.raises(ValueError, match="no speech decoder"):
        silent.generate(**inputs, max_new_tokens=3, generation_mode="audio")


def test_rows_stop_by_themselves(model, inputs):
    free = new_tokens(model.generate(**inputs, **GREEDY, generation_mode="text"), inputs)
    stop = int(free[0, 3])
    first = [row.tolist().index(stop) if stop in row.tolist() else 14 for row in free]
    assert len(set(first)) > 1, "the test needs rows that stop at different steps"
    output = model.generate(**inputs, **{**GREEDY, "eos_token_id": stop})
    for row, place in enumerate(first):
        generated = new_tokens(output, inputs)[row]
        assert torch.equal(generated[: place + 1], free[row, : place + 1])
        assert bool((generated[place + 1 :] == 256).all())
        spoken = sum(len(piece.text_ids) for piece in output.segments[row])
        assert spoken <= min(place, 14), "the token that ends the turn is not spoken"


def test_sampling_follows_the_seed_and_the_options(model, inputs):
    settings = {"max_new_tokens": 8, "generation_mode": "text", "do_sample": True, "temperature": 2.0, "top_k": 0}

    def run(seed, **more):
        torch.manual_seed(seed)
        return model.generate(**inputs, **{**settings, **more})

    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1))
    greedy = model.generate(**inputs, max_new_tokens=8, generation_mode="text", do_sample=False)
    assert torch.equal(run(0, top_k=1), greedy)
    assert torch.equal(run(0, top_p=1e-6, top_p_rule="exclusive"), greedy)
    three = run(0, num_return_sequences=3)
    assert len(three) == 9 and not torch.equal(three[0], three[1])
    banned = int(greedy[0, inputs["input_ids"].shape[1]])
    assert banned not in new_ids(
        model.generate(**inputs, max_new_tokens=8, suppress_tokens=[banned], generation_mode="text"), inputs
    )
    penalised = model.generate(
        **inputs, max_new_tokens=8, generation_mode="text", do_sample=False, repetition_penalty=3.0
    )
    assert penalised.shape == greedy.shape


def new_ids(sequences, inputs) -> list[int]:
    return sequences[:, inputs["input_ids"].shape[1] :].flatten().tolist()


def test_speech_sampling_options(model, inputs):
    def run(seed, **more):
        torch.manual_seed(seed)
        return torch.cat(model.generate(**inputs, **{**GREEDY, **more}).speech_tokens)

    greedy = run(0)
    assert torch.equal(greedy, run(1, speech_do_sample=True, speech_top_k=1))
    sampled = run(0, speech_do_sample=True, speech_top_k=10, speech_temperature=2.0)
    assert not torch.equal(greedy, sampled)
    assert int(sampled.max()) < 32, "only codes are spoken"


def test_length_and_stop_strings(model, processor, inputs):
    prompt = inputs["input_ids"].shape[1]
    assert model.generate(**inputs, max_length=prompt + 2, generation_mode="text").shape[1] <= prompt + 2
    with pytest.raises(ValueError, match="no room"):
        model.generate(**inputs, max_length=3, generation_mode="text")
    free = new_tokens(model.generate(**inputs, **GREEDY, generation_mode="text"), inputs)
    letters = [processor.tokenizer.decode(token) for token in free[0, :, None]]
    place = next(i for i, letter in enumerate(letters) if letter.isascii() and letter.isalpha())
    stop = letters[place]
    output = model.generate(
        **inputs, **GREEDY, generation_mode="text", stop_strings=[stop], tokenizer=processor.tokenizer
    )
    assert torch.equal(new_tokens(output, inputs)[0, : place + 1], free[0, : place + 1])
    assert bool((new_tokens(output, inputs)[0, place + 1 :] == 256).all())

    class Third(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.full((len(input_ids),), input_ids.shape[1] >= prompt + 3)

    output = model.generate(
        **inputs, max_new_tokens=9, generation_mode="text", stopping_criteria=StoppingCriteriaList([Third()])
    )
    assert output.shape[1] == prompt + 3


def test_runaway_speech_is_cut_and_reported(model, inputs):
    output = model.generate(**inputs, **{**GREEDY, "speech_max_tokens": 4})
    reasons = {piece.finish_reason for row in output.segments for piece in row}
    assert "length" in reasons and reasons <= {"end", "length"}
    assert all(len(piece.speech_tokens) <= 4 for row in output.segments for piece in row)


@torch.no_grad()
def test_second_turn_on_the_first_turns_cache(model, processor):
    first = inputs_of(processor, question(0.4))
    output = model.generate(**first, **GREEDY, generation_mode="text")
    answered = output.sequences
    table = model.get_input_embeddings()
    more = torch.cat((answered[:, -1:], torch.tensor([[258, 257, 65, 66]])), dim=1)
    whole, _ = model.prepare_inputs_embeds(answered, first["input_features"], first["feature_attention_mask"])
    whole = torch.cat((whole, table(more[:, 1:])), dim=1)
    expected = model.generate(inputs_embeds=whole, max_new_tokens=5, do_sample=False, generation_mode="text")
    past = output.past_key_values
    mask = torch.ones(1, past.get_seq_length() + more.shape[1], dtype=torch.long)
    found = model.generate(
        input_ids=more,
        attention_mask=mask,
        past_key_values=past,
        max_new_tokens=5,
        do_sample=False,
        generation_mode="text",
    )
    assert torch.equal(found[:, more.shape[1] :], expected)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_beams": 2}, "num_beams=2"),
        ({"generation_mode": "image"}, "'image'"),
        ({"generation_mode": "text", "audio_streamer": AudioStreamer()}, "makes no sound"),
        ({"speech_top_k": 0}, "speech_top_k=0"),
        ({"segment_policy": "word"}, "'word'"),
        ({"codec_overlap": -1}, "codec_overlap=-1"),
        ({"speech_temperature": 0.0}, "speech_temperature"),
        ({"tempreature": 0.5}, "tempreature"),
        ({"inputs_embeds": torch.zeros(3, 2, 32)}, "either input_ids"),
    ],
)
def test_wrong_settings_are_named(model, inputs, kwargs, words):
    with pytest.raises(ValueError, match=words):
        model.generate(**inputs, max_new_tokens=2, **kwargs)


def test_a_generation_config_keeps_the_voice_of_the_checkpoint(model, inputs):
    by_name = model.generate(**inputs, **{**GREEDY, "speech_max_tokens": 7})
    plain = GenerationConfig(do_sample=False, max_new_tokens=14, return_dict_in_generate=True)
    plain.speech_max_tokens = 7
    ours = FreezeOmniGenerationConfig(
        do_sample=False, max_new_tokens=14, return_dict_in_generate=True, speech_max_tokens=7
    )
    for config in (plain, ours):
        output = model.generate(**inputs, generation_config=config)
        assert [len(row) for row in output.segments] == [len(row) for row in by_name.segments]
        assert torch.equal(output.audio[0], by_name.audio[0])
    assert ours.segment_border_token_ids == [], "the caller's object is left alone"
    with pytest.raises(ValueError, match="not both"):
        model.generate(**inputs, generation_config=ours, max_new_tokens=3)


def test_generation_config_round_trips(model, tmp_path):
    model.generation_config.save_pretrained(tmp_path)
    again = FreezeOmniGenerationConfig.from_pretrained(tmp_path)
    assert again.to_dict() == {**model.generation_config.to_dict(), "_from_model_config": again._from_model_config}
    assert "_given" not in (tmp_path / "generation_config.json").read_text()
    assert again.segment_border_token_ids == model.generation_config.segment_border_token_ids


def test_right_padding_is_refused(model, inputs):
    flipped = {**inputs, "attention_mask": inputs["attention_mask"].flip(1)}
    with pytest.raises(ValueError, match="padded on the right"):
        model.generate(**flipped, max_new_tokens=2)


def test_bfloat16_model_speaks(processor, inputs):
    half = tiny.model().to(torch.bfloat16)
    output = half.generate(**inputs, **GREEDY)
    assert all(sound.isfinite().all() and sound.dtype == torch.float32 for sound in output.audio)
