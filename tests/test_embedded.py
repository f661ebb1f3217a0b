# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The embedded checkpoint: what is in it, and that it hears."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from freeze_omni_hf import FreezeOmniForConditionalGeneration, FreezeOmniProcessor, embedded_checkpoint
from freeze_omni_hf.embedded import embedded_folder, is_untrained
from freeze_omni_hf.evaluation import error_rates
from freeze_omni_hf.evaluation.hearing import answer_speech, answer_text, read_out
from freeze_omni_hf.processing import load_audio


EXAMPLES = Path(__file__).parents[1] / "examples"
QUESTIONS = {
    "question.wav": "What is the capital of France?",
    "question_2.wav": "How many days are there in a week?",
    "question_3.wav": "What color is the sky?",
}


def test_it_holds_speech_parts_alone_in_float16():
    file = embedded_folder() / "model.safetensors"
    assert file.stat().st_size <= 80_000_000
    with safe_open(file, "pt") as weights:
        names = list(weights.keys())
        assert names and not any("language_model" in name for name in names)
        floats = {weights.get_tensor(name).dtype for name in names if "proj.weight" in name}
    assert floats == {torch.float16}
    config = json.loads((embedded_folder() / "config.json").read_text())
    assert config["llm_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct" and not config["llm_saved"]
    assert config["text_config"]["_name_or_path"] == config["llm_name_or_path"]  # no path of a machine


def test_an_untrained_voice_is_added_in_the_cache():
    """While the checkpoint has no voice: the same ears, a voice from a fixed seed, and a mark that says so."""
    folder = embedded_checkpoint(quiet=True)
    if folder == embedded_folder():
        pytest.skip("the embedded checkpoint has a voice")
    assert is_untrained(folder) and not is_untrained(embedded_folder())
    with (
        safe_open(embedded_folder() / "model.safetensors", "pt") as trained,
        safe_open(folder / "model.safetensors", "pt") as whole,
    ):
        names = set(whole.keys())
        assert any(name.startswith("codec.") for name in names)
        for name in trained.keys():  # noqa: SIM118
            assert torch.equal(trained.get_tensor(name).half(), whole.get_tensor(name).half()), name


def test_it_hears_the_example_questions(smollm2):
    model = FreezeOmniForConditionalGeneration.from_pretrained(embedded_folder(), language_model=smollm2).eval()
    processor = FreezeOmniProcessor.from_pretrained(embedded_folder())
    waves = [load_audio(EXAMPLES / name, 16000) for name in QUESTIONS]
    heard = read_out(model, processor, waves)
    assert error_rates(heard, QUESTIONS.values())["wer"] < 0.3, heard
    # With the LLM's help, and answered in text: the whole way from sound to the LLM's own words.
    answers, found = answer_speech(model, processor, waves, max_new_tokens=20)
    assert error_rates(found, QUESTIONS.values())["wer"] < 0.1, found
    written = answer_text(model, processor, found, max_new_tokens=20)
    assert answers == written and "Paris" in answers[0]
