# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The Space without a page: what it refuses and how it answers."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from app import as_chat
from engine import MAX_TURNS, Answer, Engine, Line, Progress, Settings, SpaceError, Turn, as_messages, read_question


SPEECH = 0.1 * np.sin(2 * np.pi * 220 * np.arange(16000) / 16000)


def ask(engine, loaded, question, turns=(), **settings):
    """All events of an answer."""
    return list(engine.answer(loaded, list(turns), question, replace(loaded.settings, **settings)))


def test_answer_comes_in_pieces_that_are_the_whole(engine, checkpoint, question):
    loaded = engine.load(str(checkpoint))
    *steps, answer = ask(engine, loaded, question)
    assert isinstance(answer, Answer) and all(isinstance(step, Progress) for step in steps)
    assert "".join(step.text for step in steps).strip() == answer.text != ""
    sound = np.concatenate([step.sound for step in steps if step.sound is not None])
    assert np.array_equal(sound, answer.sound)
    assert len(sound) > 0 and len(sound) % 600 == 0 and answer.sampling_rate == 24000
    parts = {"features", "audio_encoder", "text_prefill", "text", "speech_decoder", "codec"}
    assert parts | {"first_text", "first_sound"} <= set(answer.timings)
    assert answer.timings["first_text"] <= answer.timings["first_sound"]


def test_answer_is_that_of_the_pipeline(engine, checkpoint, question):
    from transformers import pipeline

    loaded = engine.load(str(checkpoint))
    expected = pipeline("speech-to-speech", model=str(checkpoint))(question, do_sample=False)
    answer = ask(engine, loaded, question)[-1]
    assert answer.text == expected["text"].strip()
    assert np.allclose(answer.sound, expected["audio"], atol=1e-4)


def test_model_without_a_voice_answers_with_text(engine, question, save_tiny, tmp_path):
    loaded = engine.load(str(save_tiny(tmp_path, voice=False)))
    answer = ask(engine, loaded, question)[-1]
    assert answer.text and len(answer.sound) == 0 and "codec" not in answer.timings
    assert "no voice" in loaded.describe()


def test_history_and_system_prompt_reach_the_model(engine, checkpoint, question):
    loaded = engine.load(str(checkpoint))
    lengths = []
    generate = loaded.model.generate
    loaded.model.generate = lambda **kwargs: lengths.append(kwargs["input_ids"].shape[1]) or generate(**kwargs)
    try:
        alone = ask(engine, loaded, question)[-1]
        turn = Turn(question, text=alone.text, note="not for the model")
        ask(engine, loaded, question, [turn])
        ask(engine, loaded, question, [turn], system_prompt="Be brief.")
        ask(engine, loaded, question, [turn] * (MAX_TURNS + 3), max_new_tokens=8)
        ask(engine, loaded, question, [turn] * MAX_TURNS, max_new_tokens=8)
    finally:
        del loaded.model.generate
    assert lengths[0] < lengths[1] < lengths[2]
    assert lengths[3] == lengths[4]


def test_messages_of_a_conversation():
    turns = [Turn("a.wav", text="One.", sound="b.wav", note="Stopped."), Turn("c.wav", text="Two.")]
    assert as_messages(turns, "d.wav", " Be kind. ") == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "audio", "path": "a.wav"}]},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": [{"type": "audio", "path": "c.wav"}]},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": [{"type": "audio", "path": "d.wav"}]},
    ]
    assert as_messages([], "d.wav", "  ")[0]["role"] == "user"
    # What was heard is not listened to again.
    assert as_messages([Turn("a.wav", "One.", heard="Which?")], "b.wav")[0] == {"role": "user", "content": "Which?"}


def test_what_was_heard_is_shown(engine, question, save_tiny, tmp_path):
    folder = save_tiny(tmp_path, adapter={"gate": True, "token_mixture": True, "letters": True, "num_tokens": 94})
    loaded = engine.load(str(folder))
    loaded.model.adapter.set_tokens(torch.arange(32, 126), [chr(index) for index in range(32, 126)])
    loaded.model.adapter.gate.bias.data.fill_(0.5)
    assert ask(engine, loaded, question)[-1].heard == ""
    loaded.model.generation_config.hearing_beams = 2
    heard = ask(engine, loaded, question)[-1].heard
    assert heard and f"*Heard:* {heard}" in str(as_chat([Turn(question, "Yes.", heard=heard)]))


def test_closing_the_answer_stops_the_model(engine, checkpoint, question):
    loaded = engine.load(str(checkpoint))
    before = set(threading.enumerate())
    steps = engine.answer(loaded, [], question, replace(loaded.settings, max_new_tokens=500, greedy=False, top_k=0))
    assert isinstance(next(steps), Progress)
    steps.close()
    assert set(threading.enumerate()) <= before
    assert ask(engine, loaded, question)[-1].text


def test_settings_become_arguments_of_generate():
    settings = Settings(greedy=False, temperature=0.7, top_k=5, top_p=0.9, max_new_tokens=9, speech_top_k=3)
    assert settings.generate_kwargs(speaks=True) == {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "max_new_tokens": 9,
        "segment_policy": "short_first",
        "speech_do_sample": True,
        "speech_top_k": 3,
        "speech_temperature": 1.0,
        "generation_mode": "audio",
    }
    greedy = replace(settings, greedy=True, speech_top_k=1)
    assert greedy.generate_kwargs(speaks=False) == {
        "do_sample": False,
        "max_new_tokens": 9,
        "generation_mode": "text",
    }
    assert greedy.generate_kwargs(speaks=True)["speech_do_sample"] is False


def test_settings_of_a_model_are_its_own(engine, checkpoint):
    settings = engine.load(str(checkpoint)).settings
    assert (settings.max_new_tokens, settings.segment_policy, settings.greedy) == (24, "short_first", True)
    assert settings.speech_top_k == 1


def test_sampled_answer(engine, checkpoint, question):
    loaded = engine.load(str(checkpoint))
    answer = ask(engine, loaded, question, greedy=False, temperature=0.8, top_k=0, top_p=0.9, speech_top_k=4)[-1]
    assert answer.text is not None and np.isfinite(answer.sound).all()


@pytest.mark.parametrize("path", [None, "", "/nowhere/recording.wav"])
def test_no_recording(path):
    with pytest.raises(SpaceError, match="No sound arrived.*microphone"):
        read_question(path, 16000)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(16000), "Nothing was heard"),
        (2e-4 * np.random.default_rng(0).standard_normal(16000), "Nothing was heard"),
        (np.tile(SPEECH, 31), "too long.*30 s"),
        (SPEECH[:400], "too short: 0.0[23] s"),
    ],
)
def test_unusable_recordings(write, samples, message):
    with pytest.raises(SpaceError, match=message):
        read_question(write(samples), 16000)


def test_unreadable_file_and_no_server_path_in_the_message(tmp_path):
    path = tmp_path / "noise.wav"
    for content in (b"no sound at all" * 100, b""):
        path.write_bytes(content)
        with pytest.raises(SpaceError, match="cannot be read as sound") as caught:
            read_question(str(path), 16000)
        assert str(tmp_path) not in str(caught.value)


def test_any_rate_and_stereo(write):
    stereo = np.stack([SPEECH, SPEECH], axis=1)
    assert len(read_question(write(stereo, 48000), 16000)) == pytest.approx(16000 / 3, abs=2)
    assert len(read_question(write(np.tile(SPEECH, 30)), 16000)) == 480000


def test_recording_of_the_history_is_gone(engine, checkpoint, question):
    with pytest.raises(SpaceError, match="no longer on the server"):
        ask(engine, engine.load(str(checkpoint)), question, [Turn("/nowhere/old.wav", text="Yes.")])


def test_error_in_the_model_is_told(engine, checkpoint, question):
    loaded = engine.load(str(checkpoint))
    with pytest.raises(SpaceError, match="could not be made: speech_temperature=0.0 must be above 0"):
        ask(engine, loaded, question, speech_temperature=0.0)
    assert ask(engine, loaded, question)[-1].text


def test_models_are_kept_and_forgotten(checkpoint):
    engine = Engine(capacity=1, device="cpu")
    first = engine.load(str(checkpoint))
    assert engine.load(f" {checkpoint} ") is first
    llm = str(checkpoint.parent / "llm")
    second = engine.load(str(checkpoint), llm)
    assert second is not first and engine.load(str(checkpoint), llm) is second
    assert engine.load(str(checkpoint)) is not first


def test_wrong_models_are_named(engine, checkpoint, tmp_path):
    with pytest.raises(SpaceError, match="model /nowhere/at/all could not be loaded: there is no such folder"):
        engine.load("/nowhere/at/all")
    with pytest.raises(SpaceError, match="model_type 'llama', not 'freeze_omni'"):
        engine.load(str(checkpoint.parent / "llm"))
    with pytest.raises(SpaceError, match="could not be loaded: The frozen LLM '/nowhere/llm'"):
        engine.load(str(checkpoint), "/nowhere/llm")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SpaceError, match="could not be loaded"):
        engine.load(str(tmp_path))


def test_line_has_one_place_a_visitor_and_an_end():
    line = Line(limit=2)
    ticket = line.enter("a")
    with pytest.raises(SpaceError, match="still being answered"):
        line.enter("a")
    line.enter("b")
    with pytest.raises(SpaceError, match=r"Too many people.*2 in line"):
        line.enter("c")
    assert line.goes_on("a", ticket)
    line.stop("a")
    assert line.holds("a", ticket) and not line.goes_on("a", ticket)
    line.leave("a", ticket)
    newer = line.enter("a")
    assert line.goes_on("a", newer) and not line.holds("a", ticket)
    line.leave("a", ticket)  # an old answer does not give a newer one's place away
    assert line.holds("a", newer)
    line.leave("a")
    assert not line.holds("a", newer)
    line.stop("nobody")


def test_example_sounds_are_usable():
    from app import example_questions

    paths = example_questions()
    assert {path.name for path in paths} >= {"question.wav", "question_2.wav", "question_3.wav"}
    for path in paths:
        assert soundfile.info(path).samplerate == 16000 and len(read_question(str(Path(path)), 16000)) > 16000
