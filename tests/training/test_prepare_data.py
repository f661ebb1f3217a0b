# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The data job: stopped and resumed it leaves the same files; what breaks is named and costs nothing else."""

import errno
import hashlib
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import yaml
from sine_recipe import ROOT, load_script, sentences, write_recipe

from freeze_omni_hf.processing import load_audio
from freeze_omni_hf.training import shards
from freeze_omni_hf.training.answers import answer_questions, load_answers, text_accuracy
from freeze_omni_hf.training.data import load_rows
from freeze_omni_hf.training.plan import Recipe
from freeze_omni_hf.training.voices import SYNTHESIZERS, Flite, VoiceError, Voices, check_speech


def hashes(folder):
    files = sorted(file for file in folder.rglob("*.parquet"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def arguments(recipe, output, *more):
    return ["--recipe", str(recipe), "--output", str(output), "--workers", "1", *more]


def test_stopped_and_resumed_is_the_same_as_uninterrupted(tmp_path, script, sine, monkeypatch, capsys):
    recipe = write_recipe(tmp_path)
    assert script.main(arguments(recipe, tmp_path / "whole")) == 0
    whole = hashes(tmp_path / "whole")
    assert len(whole) == 7
    assert "| asr/train | all 2 | 30 |" in capsys.readouterr().out

    # Killed in the middle of the third shard.
    speak = sine._synthesize

    def until_killed(self, text, voice, speed):
        if len(self.spoken) == 12:
            raise KeyboardInterrupt
        return speak(self, text, voice, speed)

    monkeypatch.setattr(sine, "_synthesize", until_killed)
    sine.spoken = []
    assert script.main(arguments(recipe, tmp_path / "halves")) == 130
    assert len(hashes(tmp_path / "halves")) == 2
    assert not list((tmp_path / "halves").rglob("*.partial"))

    monkeypatch.setattr(sine, "_synthesize", speak)
    sine.spoken = []
    assert script.main(arguments(recipe, tmp_path / "halves")) == 0
    assert len(sine.spoken) == 34  # 44 rows without the ten of two finished shards
    assert hashes(tmp_path / "halves") == whole
    summaries = [(tmp_path / name / "summary-00.json").read_text() for name in ("whole", "halves")]
    assert summaries[0] == summaries[1]


def test_stops_in_time_and_says_what_is_left(tmp_path, script, capsys):
    recipe = write_recipe(tmp_path)
    assert script.main(arguments(recipe, tmp_path / "out", "--minutes", "1e-9")) == 0
    assert "7 shards are left" in capsys.readouterr().out
    assert not hashes(tmp_path / "out")


def test_several_nodes_make_what_one_makes(tmp_path, script):
    recipe = write_recipe(tmp_path)
    assert script.main(arguments(recipe, tmp_path / "one")) == 0
    for index in ("1", "0"):
        assert script.main(arguments(recipe, tmp_path / "two", "--num-shards", "2", "--shard-index", index)) == 0
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_rows_have_the_contract(tmp_path, script):
    recipe = write_recipe(tmp_path)
    script.main(arguments(recipe, tmp_path / "out"))
    rows = load_rows({"path": str(tmp_path / "out" / "asr"), "split": "train"})
    recipe = Recipe(recipe, sentences())
    plan = [row for shard in recipe.shards(recipe.groups[2]) for row in shard.rows]
    assert [row["id"] for row in rows] == [row.id for row in plan]
    for row, planned in zip(rows, plan, strict=True):
        assert (row["text"], row["speaker"], row["language"]) == (planned.text, planned.speaker, "en")
        samples = load_audio(row["audio"]["bytes"])
        assert row["audio"]["bytes"][:4] == b"fLaC"
        assert len(samples) / 16000 == pytest.approx(row["duration"])
        assert row["duration"] == pytest.approx(0.2 * len(row["text"].split()) / planned.speed, rel=0.02)


def test_failed_rows_are_counted_and_named(tmp_path, script, capsys):
    recipe = write_recipe(
        tmp_path,
        voices={"train": {"low": {"sine/broken": 1}}},
        groups=[{"task": "asr", "split": "train", "name": "low", "rows": 40, "shard_rows": 20}],
    )
    assert script.main(arguments(recipe, tmp_path / "out")) == 0
    summary = json.loads((tmp_path / "out" / "summary-00.json").read_text())
    failed = summary["errors"]
    assert 0 < len(failed) < 40
    assert summary["sets"]["asr/train"]["rows"] + len(failed) == 40
    assert all("cannot say" in error["error"] and "dog" in error["error"] for error in failed)
    assert failed[0]["id"] in capsys.readouterr().out


def test_a_voice_that_fails_once_is_asked_again(tmp_path, script, sine, monkeypatch):
    recipe = write_recipe(tmp_path)
    speak, failed = sine._synthesize, set()

    def fails_first(self, text, voice, speed):
        if text not in failed:
            failed.add(text)
            raise VoiceError("out of time")
        return speak(self, text, voice, speed)

    monkeypatch.setattr(sine, "_synthesize", fails_first)
    assert script.main(arguments(recipe, tmp_path / "out")) == 0
    assert failed and not json.loads((tmp_path / "out" / "summary-00.json").read_text())["errors"]


def test_missing_voice(tmp_path, script, capsys):
    groups = [
        {"task": "asr", "split": "train", "name": "gone", "rows": 5},
        {"task": "asr", "split": "train", "name": "low", "rows": 5},
    ]
    voices = {"train": {"gone": {"sine/absent": 1}, "low": {"sine/a": 1}}}
    recipe = write_recipe(tmp_path, voices=voices, groups=groups)
    assert script.main(arguments(recipe, tmp_path / "out")) == 1
    message = capsys.readouterr().err
    assert "`install sine`" in message and "--skip-missing" in message
    assert script.main(arguments(recipe, tmp_path / "out", "--skip-missing")) == 0
    assert list(hashes(tmp_path / "out")) == ["asr/train-low-00000.parquet"]
    assert "1 shards are left, 1 without their voice" in capsys.readouterr().out


def test_unknown_synthesizer_and_group(tmp_path, script, capsys):
    recipe = write_recipe(tmp_path, voices={"train": {"low": {"robot/a": 1}}, "dev": {"mid": {"sine/c": 1}},
                                            "test": {"high": {"sine/d": 1}}})  # fmt: skip
    assert script.main(arguments(recipe, tmp_path / "out")) == 1
    assert "no synthesizer 'robot'" in capsys.readouterr().err
    assert script.main(arguments(recipe, tmp_path / "out", "--only", "asr/train-nobody")) == 1
    assert "asr/train-low" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["voices: [", "seed: 1", "absent"])
def test_unreadable_recipe(tmp_path, script, capsys, broken):
    file = tmp_path / "recipe.yaml"
    if broken != "absent":
        file.write_text(broken)
    assert script.main(arguments(file, tmp_path / "out")) == 1
    assert str(file) in capsys.readouterr().err


def test_full_disk_keeps_what_is_finished(tmp_path, script, monkeypatch, capsys):
    import pyarrow.parquet as pq

    recipe = write_recipe(tmp_path)
    write, count = pq.write_table, []

    def fills_up(table, where, **options):
        count.append(where)
        if len(count) == 3:
            where.write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(table, where, **options)

    monkeypatch.setattr(pq, "write_table", fills_up)
    assert script.main(arguments(recipe, tmp_path / "out")) == 1
    assert "is full" in capsys.readouterr().err
    assert len(hashes(tmp_path / "out")) == 2 and not list((tmp_path / "out").rglob("*.partial"))
    assert script.main(arguments(recipe, tmp_path / "out")) == 0
    assert len(hashes(tmp_path / "out")) == 7


def test_too_little_space_is_said_before_anything_is_made(tmp_path, script, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert script.main(arguments(write_recipe(tmp_path), tmp_path / "out")) == 1
    assert "44 rows need about" in capsys.readouterr().err


def test_shards_of_another_recipe_are_not_mixed_in(tmp_path, script, capsys):
    recipe = write_recipe(tmp_path)
    assert script.main(arguments(recipe, tmp_path / "out")) == 0
    before = hashes(tmp_path / "out")
    settings = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**settings, "seed": 8}))
    assert script.main(arguments(recipe, tmp_path / "out")) == 1
    assert "--remake" in capsys.readouterr().err and hashes(tmp_path / "out") == before
    assert script.main(arguments(recipe, tmp_path / "out", "--remake")) == 0
    assert hashes(tmp_path / "out") != before


class FakeAsker:
    asked: list[str] = []

    def __init__(self, llm, max_new_tokens):
        pass

    def __call__(self, questions):
        self.asked.extend(questions)
        return [{"question": q, "answer": f"It is {q.split()[-1]}", "finished": True} for q in questions]


def test_questions_carry_the_answers_of_the_llm(tmp_path, script, monkeypatch):
    monkeypatch.setattr("freeze_omni_hf.training.answers._Asker", FakeAsker)
    FakeAsker.asked = []
    groups = [
        {"task": "answers"},
        {"task": "qa", "split": "test", "name": "high", "rows": 6},
        {"task": "qa", "split": "train", "name": "low", "rows": 10},
    ]
    recipe = write_recipe(tmp_path, groups=groups)
    assert script.main(arguments(recipe, tmp_path / "out")) == 0
    assert len(FakeAsker.asked) == 16
    rows = load_rows({"path": str(tmp_path / "out" / "qa"), "split": "test", "task": "qa"})
    assert len(rows) == 6 and all(row["answers"] and row["finished"] for row in rows)
    system, user, assistant = rows[0]["messages"]
    assert system["content"][0]["text"].startswith("You are a helpful voice assistant")
    assert user == {"role": "user", "content": [{"type": "audio", "text": None}]}
    assert assistant["content"][0]["text"] == f"It is {rows[0]['text'].split()[-1]}"
    # The questions serve for recognition, too.
    assert load_rows({"path": str(tmp_path / "out" / "qa"), "split": "train"})[0]["text"]


def test_the_models_own_voice_says_sentences_and_answers(tmp_path, script, monkeypatch):
    """At the codec's rate; an answer is said, and its question stays as text."""
    monkeypatch.setattr("freeze_omni_hf.training.answers._Asker", FakeAsker)
    voices = yaml.safe_load(write_recipe(tmp_path).read_text())["voices"]
    speech = {"task": "speech", "split": "train", "voice": "own"}
    groups = [
        {"task": "answers"},
        {**speech, "name": "answers", "texts": "answers", "rows": 6},
        {**speech, "name": "sentences", "rows": 4},
    ]
    recipe = write_recipe(tmp_path, voices={**voices, "speech": {"own": {"sine/d": 1}}}, groups=groups)
    assert script.main(arguments(recipe, tmp_path / "out")) == 0
    folder = str(tmp_path / "out" / "speech")
    answers = load_rows({"path": folder, "split": "train", "files": "train-answers*", "task": "qa"})
    assert len(answers) == 6 and {row["speaker"] for row in answers} == {"sine/d"}
    for row in answers:
        question, answer = (turn["content"][0]["text"] for turn in row["messages"][1:])
        assert row["text"] == answer == f"It is {question.split()[-1]}" and row["finished"]
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        assert rate == 24000 and len(samples) / rate == pytest.approx(row["duration"], abs=1e-4)
        assert row["duration"] == pytest.approx(0.2 * len(row["text"].split()), abs=1e-3)
    sentences = load_rows({"path": folder, "split": "train", "files": "train-sentences*"})
    assert len(sentences) == 4 and all(row["text"].startswith("The ") for row in sentences)


def test_answers_resume_after_a_line_was_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr("freeze_omni_hf.training.answers._Asker", FakeAsker)
    FakeAsker.asked = []
    file = tmp_path / "answers.jsonl"
    answer_questions(["How is a?", "How is b?"], file)
    file.write_text(file.read_text() + '{"question": "How is c?", "ans')
    assert set(load_answers(tmp_path)) == {"How is a?", "How is b?"}
    FakeAsker.asked = []
    known = answer_questions(["How is a?", "How is b?", "How is c?", "How is d?"], file, batch_size=1)
    assert FakeAsker.asked == ["How is c?", "How is d?"]
    assert load_answers(tmp_path) == known and len(known) == 4
    assert text_accuracy([("How is a?", ["a"]), ("How is b?", ["x"]), ("How is c?", [])], known) == (1, 2)


@pytest.mark.slow
def test_answers_of_the_real_llm(tmp_path, smollm2):
    known = answer_questions(["What is the capital of France?"], tmp_path / "a.jsonl", str(smollm2))
    assert text_accuracy([("What is the capital of France?", ["Paris"])], known) == (1, 1)


@pytest.mark.slow
def test_two_workers_make_the_same(tmp_path, monkeypatch):
    """With real processes, so with a real voice."""
    if not Flite().available():
        pytest.skip(Flite().missing())
    recipe = write_recipe(
        tmp_path,
        voices={"train": {"low": {"flite/kal16": 1}}},
        groups=[{"task": "asr", "split": "train", "name": "low", "rows": 6, "shard_rows": 3, "pitch": [0.9, 1.1]}],
    )
    wordnet = tmp_path / "wordnet"
    wordnet.mkdir()
    for part in ("noun", "verb", "adj", "adv"):
        (wordnet / f"data.{part}").write_text("".join(f'1 | a; "{text[:-1]}"\n' for text in worded(60)))
    monkeypatch.setenv("WNSEARCHDIR", str(wordnet))
    assert load_script().main(arguments(recipe, tmp_path / "one")) == 0
    command = [sys.executable, ROOT / "training" / "prepare_data.py", *arguments(recipe, tmp_path / "two")]
    subprocess.run([*command, "--workers", "2"], check=True, capture_output=True, timeout=120)
    assert len(hashes(tmp_path / "one")) == 2
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def worded(count):
    names = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    return [f"the {names[i % 10]} cats and {names[i // 10]} dogs." for i in range(count)]


@pytest.mark.parametrize("name", ["flite", "festival", "espeak", "kokoro", "pico"])
def test_real_voices_speak(name):
    voice = {"flite": "rms", "festival": "slt_hts", "espeak": "en-us+f2", "kokoro": "af_bella", "pico": "en-US"}[name]
    synthesizer = SYNTHESIZERS[name]()
    if not synthesizer.available(voice):
        pytest.skip(synthesizer.missing(voice))
    text = 'The cat said "hello" to me.'
    try:
        usual, rate = synthesizer.speak(text, voice)
        fast, _ = synthesizer.speak(text, voice, speed=1.3)
        high, _ = synthesizer.speak(text, voice, pitch=1.2)
    finally:
        synthesizer.close()
    for samples in (usual, fast, high):
        assert samples.dtype == np.float32 and np.abs(samples).max() <= 1
        check_speech(samples, rate, text)
    assert len(fast) < 0.9 * len(usual)
    assert len(high) == pytest.approx(len(usual), rel=0.12)  # higher, not faster


def test_voices_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="speed"):
        Flite().speak("Hello.", "rms", speed=9)
    with pytest.raises(VoiceError, match="'nobody'"):
        Voices().speak("Hello.", "flite/nobody")
    with pytest.raises(VoiceError, match="silent"):
        check_speech(np.zeros(16000), 16000, "one word")
    with pytest.raises(VoiceError, match="0.10 s for 4 words"):
        check_speech(np.ones(1600), 16000, "one word or four")
