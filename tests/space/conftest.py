# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""A tiny saved model and sounds for the Space, whose modules are imported as they are on the Hub: side by side."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny

from freeze_omni_hf import FreezeOmniProcessor
from freeze_omni_hf.generation import segment_token_ids


ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "space"))
pytest.importorskip("gradio", reason="the Space needs the extra demo")


@pytest.fixture(scope="session")
def save_tiny() -> Callable[..., Path]:
    return _save_tiny


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny model with a voice."""
    return _save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def engine():
    from engine import Engine

    return Engine(device="cpu")


@pytest.fixture(scope="session")
def question() -> str:
    return str(ROOT / "examples" / "question.wav")


@pytest.fixture
def write(tmp_path):
    """Writes samples to a WAV file and returns its path."""

    def to_file(samples: np.ndarray, rate: int = 16000) -> str:
        path = tmp_path / "recording.wav"
        soundfile.write(path, samples, rate, subtype="PCM_16")
        return str(path)

    return to_file


def _save_tiny(place: Path, **kwargs) -> Path:
    """Save a tiny model, its processor and its LLM in ``place``; returns the checkpoint's folder."""
    llm, tokenizer = tiny.language_model(), tiny.tokenizer()
    llm.save_pretrained(place / "llm")
    model = tiny.model(llm, llm_name_or_path=str(place / "llm"), **kwargs)
    settings = {
        **segment_token_ids(tokenizer),
        "eos_token_id": 258,
        "pad_token_id": 256,
        "max_new_tokens": 24,
        "speech_max_tokens": 40,
        "segment_policy": "short_first",
        "segment_first_max_tokens": 6,
    }
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    processor = FreezeOmniProcessor.from_model_config(model.config, tokenizer)
    model.save_pretrained(place / "model")
    processor.save_pretrained(place / "model")
    return place / "model"
