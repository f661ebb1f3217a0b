# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""A small recipe with a synthesizer that costs nothing: a sine a word."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import yaml

from freeze_omni_hf.training import voices


ROOT = Path(__file__).parents[2]
WORDS = ["cat", "dog", "house", "river", "green", "stone", "bread", "window", "music", "seven", "garden", "letter"]


def load_script():
    """training/prepare_data.py as a module."""
    if "prepare_data" not in sys.modules:
        spec = importlib.util.spec_from_file_location("prepare_data", ROOT / "training" / "prepare_data.py")
        sys.modules["prepare_data"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["prepare_data"])
    return sys.modules["prepare_data"]


class Sine(voices.Synthesizer):
    """Speaks every word as a tone; the voice "broken" fails, "absent" is not installed."""

    name = "sine"
    spoken: list[str] = []

    def missing(self, voice=None):
        return "sine/absent is not installed: `install sine`." if voice == "absent" else None

    def _synthesize(self, text, voice, speed):
        self.spoken.append(text)
        if voice == "broken" and "dog" in text:
            raise voices.VoiceError(f"sine/broken cannot say {text!r}.")
        time = np.arange(int(0.2 * len(text.split()) / speed * 8000)) / 8000
        return 0.3 * np.sin(2 * np.pi * (200 + 10 * len(text)) * time), 8000


def sentences(count: int = 400) -> list[str]:
    rng = np.random.default_rng(0)
    return [f"The {' '.join(rng.choice(WORDS, 4))} is number {index}." for index in range(count)]


def write_recipe(folder: Path, **changes) -> Path:
    """A recipe of sine voices in ``folder``; ``changes`` replace its settings."""
    (folder / "facts.yaml").write_text(
        yaml.safe_dump(
            {
                "relations": {
                    "capital": {
                        "templates": ["What is the capital of {x}?", "Name the capital of {x}."],
                        "inverse": ["{y} is the capital of what?"],
                        "statements": ["{y} is the capital of {x}."],
                        "facts": {f"Land{i}": f"Town{i}" for i in range(40)},
                    }
                },
                "chat": ["Hello!", "Who are you?"],
            }
        )
    )
    settings = {
        "seed": 7,
        "questions": "facts.yaml",
        "held_out": {"sentences": 0.1, "dev_facts": 0.1, "test_facts": 0.1},
        "voices": {
            "train": {"low": {"sine/a": 1, "sine/b": 2}},
            "dev": {"mid": {"sine/c": 1}},
            "test": {"high": {"sine/d": 1, "sine/e": 1}},
        },
        "groups": [
            {"task": "asr", "split": "test", "name": "high", "rows": 10, "shard_rows": 5},
            {"task": "asr", "split": "dev", "name": "mid", "rows": 4},
            {
                "task": "asr",
                "split": "train",
                "name": "low",
                "rows": 30,
                "shard_rows": 8,
                "speed": [0.8, 1.2],
                "pitch": [0.9, 1.1],
            },
        ],
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**settings, **changes}))
    return file
