# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""``freeze-omni talk`` on a tiny model and on the embedded one."""

from pathlib import Path

import pytest
import soundfile
import tiny

from freeze_omni_hf import FreezeOmniProcessor
from freeze_omni_hf.cli import main


QUESTION = Path(__file__).parents[1] / "examples" / "question.wav"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("talk")
    llm = tiny.language_model()
    llm.save_pretrained(place / "llm")
    model = tiny.model(llm, llm_name_or_path=str(place / "llm"))
    model.generation_config.eos_token_id = 258
    model.generation_config.speech_max_tokens = 20
    model.save_pretrained(place / "model")
    FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer()).save_pretrained(place / "model")
    return place / "model"


def test_answers_a_question(folder, tmp_path, capsys):
    output = tmp_path / "answer.wav"
    arguments = ["talk", str(QUESTION), "-o", str(output), "--model", str(folder), "--greedy", "--max-new-tokens", "6"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for words in ("Answer: ", "hear the question", "LLM text", "speech decoder", "codec", "first sound"):
        assert words in printed
    samples, rate = soundfile.read(output)
    assert rate == 24000 and len(samples) % 600 == 0 and len(samples) > 0


def test_text_only_writes_no_file(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["talk", str(QUESTION), "--model", str(folder), "--text-only", "--system-prompt", "Be brief."]) == 0
    assert not list(tmp_path.iterdir())
    assert "codec" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["nowhere.wav"], "nowhere.wav"),
        ([str(QUESTION), "--model", "no/model"], "no/model"),
        ([str(QUESTION), "--llm", "nobody/nothing"], "language_model="),
    ],
)
def test_errors_are_one_line(folder, capsys, change, words):
    arguments = change if "--model" in change else [*change, "--model", str(folder)]
    assert main(["talk", *arguments]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and words in errors[0]


def test_embedded_model_answers_with_the_real_llm(smollm2, tmp_path, capsys):
    output = tmp_path / "answer.wav"
    assert main(["talk", str(QUESTION), "-o", str(output), "--max-new-tokens", "8", "--greedy"]) == 0
    assert len(soundfile.read(output)[0]) > 0
