# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The latency benchmark runs and its figures make sense; how fast this machine is, is no matter of tests."""

import importlib
import json
import math
from pathlib import Path

import pytest
import soundfile
import tiny
import torch

from freeze_omni_hf import FreezeOmniProcessor


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def latency(monkeypatch):
    """The script as a module; its neighbours are found as when it is run."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("latency")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("latency")
    llm = tiny.language_model()
    llm.save_pretrained(place / "llm")
    model = tiny.model(llm, llm_name_or_path=str(place / "llm"))
    model.save_pretrained(place / "model")
    FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer()).save_pretrained(place / "model")
    soundfile.write(place / "question.wav", 0.1 * torch.randn(8000).numpy(), 16000)
    return place / "model"


def test_figures_and_picture(latency, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latency, "SPEECH_TOKENS", 20)
    monkeypatch.setattr(latency, "CODEC_TOKENS", 60)
    latency.main(
        [str(checkpoint), str(checkpoint.parent / "question.wav"), "--repeats", "2", "--output-dir", str(tmp_path)]
    )
    result = json.loads((tmp_path / "latency.json").read_text())
    figures = result["figures"]
    for key, figure in figures.items():
        assert math.isfinite(figure["median"]) and figure["median"] > 0, key
        assert math.isfinite(figure["worst_tenth"]) and figure["worst_tenth"] > 0, key
    targets = {"chunk_total": 60.0, "speech_decoder_rate": 160.0, "codec_streaming": 20.0, "peak_memory": 2.0}
    assert {key: row["target"] for key, row in figures.items() if row["target"] is not None} == targets
    assert all(isinstance(row["met"], bool) == (key in targets) for key, row in figures.items())
    assert figures["chunk_total"]["repeats"] == 2 * latency.CHUNKS_PER_REPEAT
    assert figures["first_text"]["median"] < figures["first_sound"]["median"]
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    # 10 counted chunks and 6 before them (left context 2), two vectors each, behind the prompt as it is rendered.
    ids = FreezeOmniProcessor.from_pretrained(checkpoint).tokenizer("<|im_start|>user\n")["input_ids"]
    assert result["settings"]["conversation_positions"] == 2 * 16 + 3 + len(ids)
    table = capsys.readouterr().out
    assert all(figure["label"] in table for figure in figures.values())
    assert ">= 160: " in table


def test_percentile_is_on_the_bad_side(latency):
    values = [float(value) for value in range(101)]
    assert latency.Figure("time", "ms", values).worst_tenth == pytest.approx(90)
    assert latency.Figure("rate", "/s", values, higher_is_better=True).worst_tenth == pytest.approx(10)
    assert [latency.Figure("time", "ms", values, target=target).met for target in (49, 50, None)] == [
        False,
        True,
        None,
    ]
    assert [latency.Figure("rate", "/s", values, True, target).met for target in (50, 51)] == [True, False]
