# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""freeze-omni eval: figures of a tiny model on tones, and what it writes."""

import json

import numpy as np
import pytest
import tiny
import tones
import torch
import yaml

from freeze_omni_hf import FreezeOmniProcessor
from freeze_omni_hf.cli import main
from freeze_omni_hf.evaluation import hearing
from freeze_omni_hf.evaluation.run import _noisy, load_suite
from freeze_omni_hf.models.freeze_omni import FreezeOmniAudioOutput


@pytest.fixture(params=[False, True], ids=["gate", "search"])
def model(request):
    """With a gate; and one that is searched."""
    if not request.param:
        return tiny.model(voice=False, adapter={"gate": True})
    built = tiny.model(voice=False, adapter={"gate": True, "token_mixture": True, "letters": True})
    built.adapter.set_tokens(torch.arange(32, 126), [chr(index) for index in range(32, 126)])
    built.generation_config.hearing_beams = 2
    return built


@pytest.fixture
def processor(model):
    return FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())


@torch.no_grad()
def test_nearest_tokens_are_those_of_the_table(model):
    table = model.get_input_embeddings().weight
    embeds = torch.stack((table[5] * 3, table[5], table[9], table[5], table[5], table[5]))[None]
    read = torch.tensor([[True, True, True, True, False, True]])
    # Neighbours that say the same are one token; with a closed vector between them they are two.
    audio = FreezeOmniAudioOutput(embeds=embeds, read_mask=read)
    assert hearing.heard_tokens(model, audio) == [[5, 9, 5, 5]]
    # An adapter that mixes tokens says itself what it heard.
    audio.token_ids = torch.tensor([[7, 7, 3, 7, 7, 7]])
    assert hearing.heard_tokens(model, audio) == [[7, 3, 7, 7]]


def test_answers_do_not_depend_on_the_batch(model, processor):
    waves = [tones.sound(word) for word in ("one", "three", "nine")]
    if model.generation_config.hearing_beams > 1:
        found = hearing.answer_speech(model, processor, waves, max_new_tokens=1)[1]
        assert found == hearing.search(model, processor, waves, batch_size=2)
    together = hearing.answer_speech(model, processor, waves, batch_size=3, max_new_tokens=4)
    assert together == hearing.answer_speech(model, processor, waves, batch_size=1, max_new_tokens=4)
    assert len(hearing.read_out(model, processor, waves, batch_size=2)) == 3
    assert len(hearing.answer_text(model, processor, ["Hello", "No"], max_new_tokens=4)) == 2


def test_reading_out_needs_a_gate(processor):
    with pytest.raises(ValueError, match="no gate"):
        hearing.read_out(tiny.model(voice=False), processor, [tones.sound("one")])


def test_noise_has_the_level_that_is_asked_for():
    wave, others = tones.sound("three"), [tones.sound("one"), tones.sound("nine")]
    for kind in ("white", "babble"):
        added = _noisy(wave, others, 10.0, kind, 0) - wave
        assert 10 * np.log10(np.mean(wave**2) / np.mean(added**2)) == pytest.approx(10.0, abs=0.3)


def test_command_prints_and_writes_everything(model, processor, tmp_path, capsys):
    llm = tmp_path / "llm"
    model.language_model.save_pretrained(llm)
    processor.tokenizer.save_pretrained(llm)
    model.config.llm_name_or_path, model.config.audio_token_id = str(llm), processor.audio_token_id
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    tones.write_data(tmp_path / "data", 6)
    suite = {
        "words": {"path": str(tmp_path / "data")},
        "noisy words": {"path": str(tmp_path / "data"), "noise_db": 10},
        "questions": {"path": str(tmp_path / "data"), "task": "qa"},
        "not there": {"path": str(tmp_path / "nothing")},
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    command = ["eval", str(tmp_path / "model"), "--suite", str(tmp_path / "suite.yaml"), "--limit", "4"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert "left out: not there" in shown.err and "| questions | 4 |" in shown.out
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())["sets"]
    assert figures["words"]["rows"] == 4 and figures["words"]["read_out"]["wer"] > 0
    assert "transcribe" not in figures["words"]
    ways = {"read_out", "search"} if model.generation_config.hearing_beams > 1 else {"read_out"}
    assert set(figures["questions"]) == {"rows", "spoken", "text", "ratio", *ways}
    assert ways < set(figures["words"])
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and rows[0]["set"] == "words" and "read_out" in rows[0]
    assert (tmp_path / "out" / "figures.png").stat().st_size > 5000
    assert main([*command, "--only", "words", "--ways", "transcribe", "read_out"]) == 0
    assert "| words | 4 | - | - |" not in capsys.readouterr().out
    assert main([*command, "--only", "nowhere"]) == 1
    assert "There is no set nowhere" in capsys.readouterr().err
    assert main([*command, "--only", "not there"]) == 1


def test_default_suite_is_held_out():
    assert all(spec["split"] in ("test", "human") for spec in load_suite().values())
