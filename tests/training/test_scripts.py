# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Every input stage as a script: spoken digits, a tiny model; the loss falls, and only what is named changes."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import tones
import torch
from safetensors.torch import load_file
from smoke import ROOT, TRAINER, write_recipe

from freeze_omni_hf import FreezeOmniProcessor, state_hash
from freeze_omni_hf.training.shards import features


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A folder with an LLM, a model around it that goes into a stage, and data."""
    folder = tmp_path_factory.mktemp("stages")
    tokenizer = tiny.tokenizer()
    llm = tiny.language_model()
    llm.save_pretrained(folder / "llm")
    tokenizer.save_pretrained(folder / "llm")
    model = tiny.model(
        llm,
        voice=False,
        encoder={"hidden_dropout": 0.0, "activation_dropout": 0.0, "left_chunks": 4},
        adapter={"gate": True, "num_blocks": 1, "token_mixture": True, "spelling_size": 16},
    )
    model.adapter.set_tokens(torch.arange(200), [chr(index) for index in range(200)])
    model.config.llm_name_or_path = str(folder / "llm")
    processor = FreezeOmniProcessor.from_model_config(model.config, tokenizer)
    model.config.audio_token_id = processor.audio_token_id
    model.adapter.gate.bias.data.fill_(1.0)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    tones.write_data(folder / "data")
    return folder


def recipe(start: Path, output: Path, **settings) -> Path:
    data = [{"path": str(start / "data"), "task": settings.pop("task", "asr")}]
    content = {
        **TRAINER,
        "model": str(start / "model"),
        "train": data,
        "output_dir": str(output),
        "encoder_learning_rate": 1e-2,
        "label_names": ["labels"],
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "duration",
    }
    return write_recipe(output, **{**content, **settings})


def run(script: str, config: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--config", str(config)])
    runpy.run_path(str(ROOT / "training" / script), run_name="__main__")


def losses(output: Path) -> list[float]:
    (last,) = output.glob("checkpoint-40")
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


STAGES = {
    "input0": ("input0_chunks.py", {"fixed_share": 1.0}, {"speech_encoder"}, 0.9),
    "input1": ("input1_align.py", {"character_weight": 0.5, "negatives": 50}, {"speech_encoder", "adapter"}, 0.6),
    "input1-upper": ("input1_align.py", {"frozen_layers": 1}, {"speech_encoder", "adapter"}, 0.7),
    "input2": ("input2_transcribe.py", {}, {"speech_encoder", "adapter", "task_embeddings"}, 0.95),
    "input3": ("input3_answer.py", {"task": "qa"}, {"prompt_embeddings"}, 0.95),
    "input3-distil": (
        "input3_answer.py",
        {"task": "qa", "distill": True, "parts": ["adapter"], "lm_loss_weight": 0.0},
        {"adapter"},
        0.9,
    ),
}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_learns_and_changes_its_parts_alone(stage, start, tmp_path, monkeypatch):
    script, settings, parts, share = STAGES[stage]
    llm = state_hash_of(start / "llm")
    run(script, recipe(start, tmp_path / "out", **settings), monkeypatch)
    found = losses(tmp_path / "out")
    assert found[-1] < share * found[0], found
    before, after = (load_file(folder / "model.safetensors") for folder in (start / "model", tmp_path / "out"))
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in changed} == parts
    lowest = [name for name in changed if name.startswith(("speech_encoder.subsampling", "speech_encoder.layers.0."))]
    assert bool(lowest) == ("speech_encoder" in parts and stage != "input1-upper")
    assert state_hash_of(start / "llm") == llm
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| loss | {found[-1]:.4g} |" in card and "learning_rate: 0.01" in card
    assert (tmp_path / "out" / "loss.png").stat().st_size > 5000


def state_hash_of(folder: Path) -> str:
    from transformers import AutoModelForCausalLM

    return state_hash(AutoModelForCausalLM.from_pretrained(folder))


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(start, tmp_path, monkeypatch):
    settings = {
        "max_steps": 30,
        "save_steps": 6,
        "lr_scheduler_type": "cosine",
        "augment": {"noise_probability": 1.0, "speed_probability": 0.5},
        "negatives": 3,
        "whole_share": 0.3,
    }
    run("input1_align.py", recipe(start, tmp_path / "straight", **settings), monkeypatch)
    config = recipe(start, tmp_path / "killed", **settings)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "training" / "input1_align.py"), "--config", str(config)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 180
    while not list((tmp_path / "killed").glob("checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    run("input1_align.py", config, monkeypatch)
    straight, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "killed"))
    for name, tensor in straight.items():
        assert torch.equal(tensor, killed[name]), name


def test_evaluation_broken_rows_and_the_hub(start, tmp_path, monkeypatch, capsys):
    """Error rates during training; a row that cannot be read is named; the finished folder goes to the Hub."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [tones.row(index) for index in range(10)]
    rows[3]["audio"]["bytes"] = b"no sound"
    (tmp_path / "data").mkdir()
    table = pa.Table.from_pylist(rows, schema=features("qa").arrow_schema)
    pq.write_table(table, tmp_path / "data" / "train-00000.parquet")
    calls = []

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, name, private=None, exist_ok=False):
            calls.append(name)
            return SimpleNamespace(repo_id=f"me/{name}")

        def upload_folder(self, repo_id, folder_path, ignore_patterns):
            files = {path.name for path in Path(folder_path).iterdir()}
            assert {"model.safetensors", "processor_config.json", "README.md"} <= files
            calls.append(repo_id)

    monkeypatch.setattr("freeze_omni_hf.training.stages.HfApi", Hub)
    settings = {
        "train": [{"path": str(tmp_path / "data")}],
        "test": {"dev": {"path": str(start / "data"), "limit": 5}},
        "eval_strategy": "steps",
        "eval_steps": 5,
        "max_steps": 10,
        "push_to_hub": True,
        "hub_model_id": "ears",
    }
    run("input1_align.py", recipe(start, tmp_path / "out", **settings), monkeypatch)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "eval_dev_wer" in card and "eval_dev_cer" in card
    assert "1 skipped" in card and "row-3" in capsys.readouterr().out
    assert calls == ["ears", "me/ears"]
