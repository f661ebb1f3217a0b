# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Running a stage's script in the test's own process, on a recipe written on the spot."""

import runpy
import sys
from pathlib import Path

import torch
import yaml


ROOT = Path(__file__).parents[2]

TRAINER = {
    "learning_rate": 1e-2,
    "max_steps": 40,
    "per_device_train_batch_size": 5,
    "logging_steps": 5,
    "save_steps": 20,
    "remove_unused_columns": False,
    "report_to": "none",
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "disable_tqdm": True,
}
"""`TrainingArguments` of a short run."""

EVERY_20 = {"eval_strategy": "steps", "eval_steps": 20}


def write_recipe(folder: Path, **settings) -> Path:
    """The recipe's file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def run(script: str, folder: Path, monkeypatch, **settings) -> None:
    """Runs ``training/<script>`` with these settings; what it raises comes through."""
    monkeypatch.setattr(sys, "argv", [script, "--config", str(write_recipe(folder, **settings))])
    try:
        runpy.run_path(str(ROOT / "training" / script), run_name="__main__")
    except SystemExit as stopped:
        assert not stopped.code
    finally:
        torch.set_grad_enabled(True)
