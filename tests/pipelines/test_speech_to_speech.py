# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""``pipeline("speech-to-speech")`` and ``pipeline("any-to-any")``."""

import io
import json

import numpy as np
import pytest
import soundfile
import tiny
import torch
from transformers import pipeline

from freeze_omni_hf import FreezeOmniProcessor, SpeechToSpeechPipeline
from freeze_omni_hf.generation import segment_token_ids


OPTIONS = {"do_sample": False, "max_new_tokens": 8, "speech_max_tokens": 30}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved tiny model: speech parts and processor here, the LLM in a folder of its own."""
    place = tmp_path_factory.mktemp("checkpoint")
    llm, tokenizer = tiny.language_model(), tiny.tokenizer()
    llm.save_pretrained(place / "llm")
    model = tiny.model(llm, llm_name_or_path=str(place / "llm"))
    processor = FreezeOmniProcessor.from_model_config(model.config, tokenizer)
    for name, value in {**segment_token_ids(tokenizer), "eos_token_id": 258, "pad_token_id": 256}.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(place / "model")
    processor.save_pretrained(place / "model")
    return place / "model"


@pytest.fixture(scope="module")
def pipe(folder):
    return pipeline("speech-to-speech", model=str(folder))


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "question.wav"
    time = np.arange(9000) / 16000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 300 * time * (1 + time)), 16000, subtype="PCM_16")
    return path


def test_class_and_result(pipe, wav):
    assert type(pipe) is SpeechToSpeechPipeline
    answer = pipe(str(wav), generate_kwargs=OPTIONS)
    assert set(answer) == {"audio", "sampling_rate", "text"}
    assert answer["sampling_rate"] == 24000 and answer["audio"].dtype == np.float32
    assert answer["audio"].ndim == 1 and len(answer["audio"]) % 600 == 0 and isinstance(answer["text"], str)


def test_every_kind_of_input_gives_the_same_answer(pipe, wav):
    samples, rate = soundfile.read(wav, dtype="float32")
    expected = pipe(str(wav), generate_kwargs=OPTIONS)
    kinds = [
        wav,
        wav.read_bytes(),
        wav.as_uri(),
        io.BytesIO(wav.read_bytes()),
        samples,
        torch.from_numpy(samples),
        {"array": samples, "sampling_rate": rate},
        {"raw": samples, "sampling_rate": rate},
        {"path": str(wav)},
        [{"role": "user", "content": [{"type": "audio", "path": str(wav)}]}],
    ]
    for kind in kinds:
        answer = pipe(kind, generate_kwargs=OPTIONS)
        assert answer["text"] == expected["text"], type(kind)
        np.testing.assert_allclose(answer["audio"], expected["audio"], atol=1e-5)


def test_lists_batches_and_generators(pipe, wav):
    samples, _ = soundfile.read(wav, dtype="float32")
    questions = [samples, samples[:4000], {"array": samples[::-1].copy(), "sampling_rate": 16000}, str(wav)]
    alone = [pipe(question, generate_kwargs=OPTIONS) for question in questions]
    for answers in (
        pipe(questions, generate_kwargs=OPTIONS),
        pipe(questions, batch_size=3, generate_kwargs=OPTIONS),
        list(pipe((question for question in questions), batch_size=2, generate_kwargs=OPTIONS)),
    ):
        assert [answer["text"] for answer in answers] == [answer["text"] for answer in alone]
        for answer, expected in zip(answers, alone, strict=True):
            np.testing.assert_allclose(answer["audio"], expected["audio"], atol=1e-5)
    chats = [[{"role": "user", "content": [{"type": "audio", "array": samples, "sampling_rate": 16000}]}]] * 2
    assert pipe(chats, generate_kwargs=OPTIONS)[1]["text"] == alone[0]["text"]


def test_conversation_with_history_and_system_prompt(pipe, wav):
    plain = pipe(str(wav), generate_kwargs=OPTIONS)
    turns = [
        {"role": "user", "content": [{"type": "audio", "path": str(wav)}]},
        {"role": "assistant", "content": [{"type": "text", "text": plain["text"]}]},
    ]
    last = {"role": "user", "content": [{"type": "text", "text": "And now?"}, {"type": "audio", "path": str(wav)}]}
    system = {"role": "system", "content": "Be brief."}
    whole = pipe([system, *turns, last], generate_kwargs=OPTIONS)
    assert whole["text"] != plain["text"]
    by_argument = pipe([*turns, last], system_prompt="Be brief.", generate_kwargs=OPTIONS)
    assert by_argument["text"] == whole["text"]
    audio_last = [*turns, {"role": "user", "content": [{"type": "audio", "path": str(wav)}]}]
    assert (
        pipe(str(wav), history=turns, generate_kwargs=OPTIONS)["text"]
        == pipe(audio_last, generate_kwargs=OPTIONS)["text"]
    )
    text_only = pipe([{"role": "user", "content": "Hello"}], generate_kwargs=OPTIONS)
    assert len(text_only["audio"]) > 0


def test_options(pipe, wav, folder):
    text = pipe(str(wav), generation_mode="text", **{k: OPTIONS[k] for k in ("do_sample", "max_new_tokens")})
    assert text["audio"] is None and text["text"] == pipe(str(wav), generate_kwargs=OPTIONS)["text"]
    with pytest.raises(ValueError, match="max_new_tokens is given twice"):
        pipe(str(wav), max_new_tokens=3, generate_kwargs=OPTIONS)
    preset = pipeline("speech-to-speech", model=str(folder), generate_kwargs=OPTIONS, system_prompt="Be brief.")
    assert preset(str(wav))["text"] == pipe(str(wav), system_prompt="Be brief.", generate_kwargs=OPTIONS)["text"]
    with pytest.raises(FileNotFoundError, match="nowhere.wav"):
        pipe("nowhere.wav")
    with pytest.raises(ValueError, match="empty|no samples"):
        pipe(np.zeros(0, dtype=np.float32))


def test_save_pretrained_keeps_the_processor(pipe, wav, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert "custom_pipelines" not in json.loads((tmp_path / "config.json").read_text())
    again = pipeline("speech-to-speech", model=str(tmp_path))
    first, second = pipe(str(wav), generate_kwargs=OPTIONS), again(str(wav), generate_kwargs=OPTIONS)
    assert first["text"] == second["text"]
    np.testing.assert_array_equal(first["audio"], second["audio"])


def test_loaded_objects_can_be_handed_over(pipe, wav):
    own = SpeechToSpeechPipeline(model=pipe.model, processor=pipe.processor)
    assert own(str(wav), generate_kwargs=OPTIONS)["text"] == pipe(str(wav), generate_kwargs=OPTIONS)["text"]
    with pytest.raises(ValueError, match="no processor"):
        SpeechToSpeechPipeline(model=pipe.model)


def test_any_to_any(folder, wav, pipe):
    general = pipeline("any-to-any", model=str(folder))
    chat = [{"role": "user", "content": [{"type": "audio", "path": str(wav)}]}]
    expected = pipe(str(wav), generate_kwargs=OPTIONS)
    text = general(text=chat, generate_kwargs=dict(OPTIONS), return_full_text=False)
    assert text[0]["generated_text"] == expected["text"]
    sound = general(text=chat, generate_kwargs=dict(OPTIONS), generation_mode="audio")
    np.testing.assert_allclose(sound[0]["generated_audio"], expected["audio"], atol=1e-5)


def test_default_model_is_the_embedded_checkpoint(smollm2, wav):
    answer = pipeline("speech-to-speech")(str(wav), max_new_tokens=4, generate_kwargs={"speech_max_tokens": 20})
    assert len(answer["audio"]) > 0 and answer["sampling_rate"] == 24000
