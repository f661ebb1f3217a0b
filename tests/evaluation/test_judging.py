# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Judging a voice: figures are those of what the judges say, and the sound that they are given is the model's."""

import json

import numpy as np
import pytest
import tiny
import tones
import torch

from freeze_omni_hf import FreezeOmniProcessor
from freeze_omni_hf.cli import main
from freeze_omni_hf.evaluation import speaking
from freeze_omni_hf.evaluation.judge import PocketsphinxJudge, transcripts
from freeze_omni_hf.evaluation.speaking import SpeechResult, _judged, goes_in_circles, judge_answers, judge_codec


@pytest.fixture
def model():
    built = tiny.model(prompt_length=0)
    built.generation_config.speech_max_tokens = 12
    built.generation_config.eos_token_id = 258
    return built


@pytest.fixture
def processor(model):
    return FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())


class Listener:
    """Remembers what it is given and says one thing."""

    def __init__(self, words: str = "cat dog"):
        self.words, self.heard = words, []

    def __call__(self, samples: np.ndarray) -> str:
        self.heard.append(samples)
        return self.words


def test_judges_hear_16_khz_and_nothing_in_nothing():
    judge = Listener()
    assert transcripts(judge, [np.zeros(24000, np.float32), np.zeros(100, np.float32)], 24000) == ["cat dog", ""]
    assert [len(samples) for samples in judge.heard] == [16000]


def test_the_codec_is_judged_beside_the_voice_itself(model):
    waves = [0.1 * np.random.default_rng(n).standard_normal(12000).astype(np.float32) for n in range(3)]
    judge = Listener()
    voice, codec = judge_codec(model.codec, waves, ["cat dog", "cat dog", "cat bird"], {"ear": judge})
    assert voice.figures == {"wer_ear": pytest.approx(1 / 6, abs=1e-4)}
    assert codec.figures["wer_ear"] == voice.figures["wer_ear"] and codec.figures["times_real_time"] > 0
    assert 0 < codec.figures["codes_used"] <= 1 and codec.figures["perplexity"] >= 1
    assert [len(samples) for samples in judge.heard] == [8000] * 6
    codes = model.codec.encode(torch.from_numpy(waves[0])[None]).audio_codes
    import soxr

    made = soxr.resample(model.codec.decode(codes).audio_values[0].detach().numpy(), 24000, 16000)
    np.testing.assert_allclose(judge.heard[3], made, atol=1e-5)


def test_answers_are_judged_by_their_own_text(model, processor):
    judge = Listener("no idea")
    questions = ["Hi", "What is this?", "Why?"]
    result = judge_answers(model, processor, questions, {"ear": judge}, batch_size=2, max_new_tokens=5)
    assert [row["question"] for row in result.rows] == questions and result.figures["answers"] == 3
    assert all(row["ear"] in ("no idea", "") for row in result.rows)
    assert result.figures["cut"] == sum(row["cut"] for row in result.rows)
    assert sum(row["seconds"] == 0 for row in result.rows) == result.figures["silent"]
    again = judge_answers(model, processor, questions, {"ear": judge}, batch_size=3, max_new_tokens=5)
    assert [row["text"] for row in again.rows] == [row["text"] for row in result.rows]


def test_answers_that_go_in_circles_do_not_count():
    """Whisper writes a repeated phrase for ever, however it is spoken: such answers are counted apart."""
    circle = "It is so. It is so. It is so. It is so."
    assert goes_in_circles(circle)
    assert not goes_in_circles("It is so, it is so, and it is so.") and not goes_in_circles("Yes")
    result, waves = SpeechResult("answers", rows=[{}, {}]), [np.zeros(24000, np.float32)] * 2
    _judged(result, {"ear": Listener("cat bird")}, waves, 24000, [circle, "cat dog"])
    assert result.figures == {"wer_ear": 0.5} and [row["ear"] for row in result.rows] == ["cat bird"] * 2
    result.rows.pop()
    _judged(result, {"ear": Listener("it is so")}, waves[:1], 24000, [circle])
    assert result.figures["wer_ear"] == 0.75  # nothing else is there


def test_command(model, processor, tmp_path, monkeypatch, capsys):
    llm = tmp_path / "llm"
    model.language_model.save_pretrained(llm)
    processor.tokenizer.save_pretrained(llm)
    model.config.llm_name_or_path, model.config.audio_token_id = str(llm), processor.audio_token_id
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    model.codec.save_pretrained(tmp_path / "codec")
    tones.write_data(tmp_path / "data", 4, "test-sentences-00000")
    tones.write_data(tmp_path / "data", 3, "test-answers-00000")
    monkeypatch.setattr(speaking, "JUDGES", {"whisper-base": Listener})
    command = ["judge", str(tmp_path / "model"), "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out")]
    assert main([*command, "--top-k", "1", "3", "--policies", "sentence"]) == 0
    shown = capsys.readouterr().out
    assert "| answers, top-k 3, sentence |" in shown and "| codec |" in shown
    figures = json.loads((tmp_path / "out" / "speaking.json").read_text())
    assert list(figures) == ["voice", "codec", "answers, top-k 1, sentence", "answers, top-k 3, sentence"]
    assert figures["voice"]["rows"] == 4
    rows = [json.loads(line) for line in (tmp_path / "out" / "speaking.jsonl").read_text().splitlines()]
    assert len(rows) == 14 and rows[-1]["whisper-base"] in ("cat dog", "")
    assert (tmp_path / "out" / "speaking.png").stat().st_size > 5000
    assert main(["judge", "--codec", str(tmp_path / "codec"), "--data", str(tmp_path / "data")]) == 0
    assert "answers" not in capsys.readouterr().out


def test_pocketsphinx_hears_a_person():
    pytest.importorskip("pocketsphinx")
    from freeze_omni_hf.training.plan import human_clips

    clips = human_clips()
    if not clips:
        pytest.skip("pocketsphinx-testdata is not installed")
    from freeze_omni_hf.processing import load_audio

    clip = next(clip for clip in clips if clip.speaker == "human/cards")
    heard = PocketsphinxJudge()(load_audio(clip.file, 16000))
    assert set(heard.split()) & set(clip.text.split())
