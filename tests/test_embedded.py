# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The embedded checkpoint: what is in it, and that it hears."""

import json
from pathlib import Path

import soxr
import torch
from safetensors import safe_open

from freeze_omni_hf import FreezeOmniForConditionalGeneration, FreezeOmniProcessor
from freeze_omni_hf.embedded import embedded_folder
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
    assert config["text_config"]["_name_or_path"] == config["llm_name_or_path"]
    # No path of a machine.
    assert not any("/.cache/" in file.read_text() for file in embedded_folder().glob("*.json"))


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


def test_its_voice_can_be_understood(smollm2):
    """A spoken question is answered aloud, and the model's own ears hear in the sound what the text says."""
    model = FreezeOmniForConditionalGeneration.from_pretrained(embedded_folder(), language_model=smollm2).eval()
    processor = FreezeOmniProcessor.from_pretrained(embedded_folder())
    chat = [{"role": "user", "content": [{"type": "audio", "path": str(EXAMPLES / "question.wav")}]}]
    inputs = processor.apply_chat_template([chat], tokenize=True, return_dict=True, add_generation_prompt=True)
    output = model.generate(
        **inputs, do_sample=False, max_new_tokens=20, tokenizer=processor.tokenizer, return_dict_in_generate=True
    )
    (text,) = processor.batch_decode(output.sequences[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert all(piece.finish_reason == "end" for piece in output.segments[0])
    # Letters take their time: neither babble without end nor a word swallowed.
    seconds = len(output.audio[0]) / processor.output_sampling_rate
    assert 0.04 < seconds / len(text) < 0.15
    sound = soxr.resample(output.audio[0].float().numpy(), processor.output_sampling_rate, 16000)
    heard = answer_speech(model, processor, [sound], max_new_tokens=1)[1]
    assert error_rates(heard, [text])["wer"] < 0.35, (text, heard)
