# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Output stages 2 and 3: the decoder is trained on what it reads in `generate`, and only what is named changes."""

import copy
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import tones
import torch
from safetensors.torch import load_file
from smoke import EVERY_20, TRAINER, run
from transformers import DacConfig, DacModel

from freeze_omni_hf import FreezeOmniProcessor, state_hash
from freeze_omni_hf.models.letters import character_ids
from freeze_omni_hf.training.codec import PhoneticHead, save_phonetic_head
from freeze_omni_hf.training.data import load_rows
from freeze_omni_hf.training.speaking import FreezeOmniForSpeaking, SpeakingCollator, encode_rows
from freeze_omni_hf.training.through_decoder import VoiceArguments, give_voice


SMALL = {"intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2, "num_pre_layers": 1}


@pytest.fixture
def model():
    return tiny.model(prompt_length=0)


@pytest.fixture
def processor(model):
    return FreezeOmniProcessor.from_model_config(model.config, tiny.tokenizer())


def conversation(question: str, answer: str) -> list[dict]:
    return [
        {"role": "user", "content": [{"type": "text", "text": question}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


def test_training_reads_what_generation_reads(model, processor):
    """Embeddings and hidden states of an answer are those that `generate` gives to the decoder."""
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": "Hi"}]], tokenize=True, return_dict=True, add_generation_prompt=True,
        return_tensors="pt",
    )  # fmt: skip
    ids = [72, 69, 76, 76, 79]
    table = model.get_input_embeddings()
    seen = torch.cat((inputs["input_ids"], torch.tensor([ids])), dim=1)
    states = model.run_language_model(table(seen), torch.ones_like(seen)).hidden_states[-1]
    start = inputs["input_ids"].shape[1]
    text, hidden = table(torch.tensor([ids])), states[:, start - 1 : -1]
    labels = torch.tensor([[3, 1, 4, 1, 5, 9]])
    expected = model.speech_decoder(text, None, hidden, None, labels=labels, return_dict=True)

    answer = processor.tokenizer.decode(ids)
    row = {"id": "a", "text": answer, "messages": conversation("Hi", answer), "speech_tokens": labels[0].tolist()}
    other = {"id": "b", "text": "longer text", "messages": conversation("What?", "longer text"),
             "speech_tokens": [2] * 9}  # fmt: skip
    stage = FreezeOmniForSpeaking(model, use_hidden_states=True, letter_weight=0.5).eval()
    alone = stage(**SpeakingCollator(processor, conversation=True)([row]))
    torch.testing.assert_close(alone.token_loss, expected.loss, rtol=1e-4, atol=1e-5)
    assert alone.letter_loss > 0
    right = expected.logits[0].argmax(dim=-1).tolist()
    wanted = [*labels[0].tolist(), model.speech_decoder.config.eos_speech_token_id]
    assert alone.hits[0].tolist() == [int(a == b) for a, b in zip(right, wanted, strict=True)]

    both = stage(**SpeakingCollator(processor, conversation=True)([row, other]))
    assert both.hits[0, :7].tolist() == alone.hits[0].tolist() and both.hits[0, 7:].unique().tolist() == [-100]
    # Without hidden states it is the text alone.
    plain = FreezeOmniForSpeaking(model).eval()(**SpeakingCollator(processor)([row]))
    expected = model.speech_decoder(text, None, labels=labels, return_dict=True)
    torch.testing.assert_close(plain.loss, expected.loss, rtol=1e-4, atol=1e-5)


def test_texts_are_read_out_as_generation_reads_them(model, processor):
    """Words instead of digits for the decoder, the LLM's own tokens for its hidden states."""
    row = {"id": "a", "text": "I have 7.", "messages": conversation("Hi", "I have 7."), "speech_tokens": [1, 2]}
    batch = SpeakingCollator(processor, conversation=True, cleaner="spoken")([row])
    assert processor.tokenizer.decode(batch["text_ids"][0]) == "I have seven."
    start, length = int(batch["answer_start"]), int(batch["answer_length"])
    assert processor.tokenizer.decode(batch["input_ids"][0, start : start + length]) == "I have 7."
    assert batch["letters"].shape[1] == len("i have seven")
    assert FreezeOmniForSpeaking(model, use_hidden_states=True).eval()(**batch).loss > 0


def test_slips_change_what_is_read_and_not_what_is_asked(model, processor):
    row = {"id": "a", "text": "abc", "speech_tokens": list(range(20))}
    batch = SpeakingCollator(processor)([row])
    stage = FreezeOmniForSpeaking(model, token_noise=1.0)
    torch.manual_seed(0)
    assert not torch.isclose(stage.train()(**batch).loss, stage.eval()(**batch).loss)
    padded = torch.tensor([[4, 5, -100]])
    assert stage._with_slips(padded)[0, 2] == -100
    read = torch.tensor([[7, 7, -100]])
    arguments = {"text_embeds": torch.zeros(1, 2, 32), "labels": padded, "return_dict": True}
    changed = model.speech_decoder(**arguments, read_tokens=read)
    direct = model.speech_decoder(**{**arguments, "labels": read})
    torch.testing.assert_close(changed.logits, direct.logits)
    assert not torch.isclose(changed.loss, direct.loss)


def test_another_sound_of_the_same_tokens(model, processor, tmp_path):
    """A codec whose generator alone was trained takes the place of the other; one with other tokens is refused."""
    other = copy.deepcopy(model.codec)
    with torch.no_grad():
        other.generator.head.weight.mul_(2)
    other.save_pretrained(tmp_path / "sound")
    decoder = model.speech_decoder
    give_voice(model, processor, VoiceArguments(codec=str(tmp_path / "sound")))
    assert model.speech_decoder is decoder
    assert torch.equal(model.codec.generator.head.weight, other.generator.head.weight)
    with torch.no_grad():
        other.quantizer.codebooks[0].weight.mul_(2)
    other.save_pretrained(tmp_path / "tokens")
    with pytest.raises(ValueError, match="generator_only"):
        give_voice(model, processor, VoiceArguments(codec=str(tmp_path / "tokens")))
    assert torch.equal(model.codec.generator.head.weight, other.generator.head.weight)
    # A new decoder may have any tokens.
    give_voice(model, processor, VoiceArguments(codec=str(tmp_path / "tokens"), decoder={"hidden_size": 16, **SMALL}))
    assert model.speech_decoder is not decoder


def test_rows_that_do_not_fit_are_named(processor):
    collate = SpeakingCollator(processor, max_tokens=5)
    rows = [{"id": str(n), "text": "ab", "speech_tokens": [1] * n} for n in (3, 9, 0)]
    assert collate(rows)["labels"].tolist() == [[1, 1, 1]]
    assert set(collate.report.skipped) == {"9", "0"} and "5" in collate.report.skipped["9"]


def test_tokens_of_rows_are_those_of_each_alone(model):
    """Of our codec, and of another one with a single codebook."""
    codec = model.codec
    waves = [0.1 * np.random.default_rng(n).standard_normal(n).astype(np.float32) for n in (6000, 9100)]
    pairs = [({"id": "x", "audio": b"", "text": "a"}, wave) for wave in waves]
    rows = encode_rows(codec, pairs)
    assert [len(row["speech_tokens"]) for row in rows] == [10, 15] and "audio" not in rows[0]
    for row, wave in zip(rows, waves, strict=True):
        assert row["speech_tokens"] == codec.encode(torch.from_numpy(wave)[None]).audio_codes[0].tolist()
    torch.manual_seed(0)
    dac = DacModel(
        DacConfig(
            encoder_hidden_size=8, downsampling_ratios=[5, 5], decoder_hidden_size=32, n_codebooks=1, codebook_size=16,
            codebook_dim=4,
        )
    ).eval()  # fmt: skip
    (row,) = encode_rows(dac, pairs[:1])
    assert abs(len(row["speech_tokens"]) - 240) <= 1 and set(row["speech_tokens"]) <= set(range(16))
    several = DacModel(DacConfig(encoder_hidden_size=8, downsampling_ratios=[5, 5], decoder_hidden_size=32)).eval()
    with pytest.raises(ValueError, match="one codebook"):
        encode_rows(several, pairs[:1])
    assert encode_rows(codec, []) == []


def save_ears(llm, folder) -> None:
    """The LLM, and a model around it that hears and does not speak."""
    llm.save_pretrained(folder / "llm")
    tiny.tokenizer().save_pretrained(folder / "llm")
    ears = tiny.model(llm, voice=False, prompt_length=0)
    ears.config.llm_name_or_path = str(folder / "llm")
    processor = FreezeOmniProcessor.from_model_config(ears.config, tiny.tokenizer())
    ears.config.audio_token_id = processor.audio_token_id
    ears.save_pretrained(folder / "ears")
    processor.save_pretrained(folder / "ears")


def test_stages_from_speech_to_a_voice(tmp_path, monkeypatch, capsys):
    """Tokens are made once; output 2 on text, output 3 on hidden states; the LLM and the codec stay as they are."""
    llm = tiny.language_model()
    source = tiny.model(llm, prompt_length=0)
    source.codec.save_pretrained(tmp_path / "codec")
    save_ears(llm, tmp_path)
    tones.write_data(tmp_path / "data")
    before = state_hash(llm)

    sets = {"train-words": {"path": str(tmp_path / "data"), "task": "qa"}}
    codes = {"codec": str(tmp_path / "codec"), "output": str(tmp_path / "codes"), "sets": sets, "rows_per_file": 8}
    run("encode_speech.py", tmp_path / "encode", monkeypatch, **codes)
    files = sorted((tmp_path / "codes").glob("*.parquet"))
    assert [pq.read_metadata(file).num_rows for file in files] == [8, 8, 4]
    times = [file.stat().st_mtime_ns for file in files]
    files[1].unlink()
    run("encode_speech.py", tmp_path / "encode", monkeypatch, **codes)
    again = [file.stat().st_mtime_ns for file in files]
    assert again[0] == times[0] and again[2] == times[2] and files[1].is_file()
    rows = load_rows({"path": str(tmp_path / "codes"), "task": "speech"})
    assert rows[0]["messages"][-1]["role"] == "assistant" and rows[0]["speech_tokens"]

    settings = {
        **TRAINER,
        **EVERY_20,
        "train": [{"path": str(tmp_path / "codes"), "task": "speech"}],
        "test": {"dev": {"path": str(tmp_path / "codes"), "task": "speech", "limit": 5}},
        "label_names": ["labels"],
        "letter_weight": 0.3,
    }
    sizes = {"hidden_size": 16, **SMALL}
    stages = {
        "output2": (
            "output2_speak.py",
            {"model": str(tmp_path / "ears"), "codec": str(tmp_path / "codec"), "decoder": sizes},
        ),
        "output3": ("output3_answer_aloud.py", {"model": str(tmp_path / "output2")}),
    }  # fmt: skip
    for name, (script, more) in stages.items():
        folder = tmp_path / name
        run(script, folder, monkeypatch, **settings, **more, output_dir=str(folder))
        history = json.loads((folder / "checkpoint-40" / "trainer_state.json").read_text())["log_history"]
        tokens = [entry["token"] for entry in history if "token" in entry]
        assert tokens[-1] < 0.9 * tokens[0], tokens
        assert any("letter" in entry for entry in history)
        assert any(0 <= entry.get("eval_dev_token_accuracy", -1) <= 1 for entry in history)
    assert state_hash(llm) == before
    ears, second, third = (load_file(tmp_path / name / "model.safetensors") for name in ("ears", "output2", "output3"))
    assert all(torch.equal(second[name], value) for name, value in ears.items())
    changed = {name.split(".")[1] for name in second if not torch.equal(second[name], third[name])}
    assert changed == {"pre_layers", "prefix_layers"}
    codec = load_file(tmp_path / "codec" / "model.safetensors")
    assert all(torch.equal(third[f"codec.{name}"], value) for name, value in codec.items())
    # Low-rank changes of the finished voice: merged, and kept apart beside it.
    more = {"model": str(tmp_path / "output3"), "lora": {"r": 2}, "output_dir": str(tmp_path / "lora")}
    run("output2_speak.py", tmp_path / "lora", monkeypatch, **settings, **more)
    merged = load_file(tmp_path / "lora" / "model.safetensors")
    assert set(merged) == set(third)
    changed = {name for name in third if not torch.equal(third[name], merged[name])}
    assert changed and all("_proj.weight" in name and name.startswith("speech_decoder.") for name in changed)
    assert not any("prefix" in name for name in changed)  # nothing came in by the prefix
    name = "speech_decoder.layers.0.self_attn.q_proj.weight"
    assert torch.linalg.matrix_rank((merged[name] - third[name]).double(), rtol=1e-3) <= 2
    assert (tmp_path / "lora" / "lora" / "adapter_model.safetensors").is_file()
    with pytest.raises(ValueError, match="no throat"):
        run("output3_answer_aloud.py", tmp_path / "wrong", monkeypatch, **settings, parts=["throat"],
            model=str(tmp_path / "output2"), output_dir=str(tmp_path / "wrong"))  # fmt: skip


def test_stages_with_letters(tmp_path, monkeypatch):
    """Letters are placed by the codec's phonetic head, and both stages train on pieces that know their place."""
    llm = tiny.language_model()
    source = tiny.model(llm, prompt_length=0)
    source.codec.save_pretrained(tmp_path / "codec")
    torch.manual_seed(0)
    save_phonetic_head(PhoneticHead(source.codec.config.latent_size, 8), tmp_path / "codec")
    save_ears(llm, tmp_path)
    tones.write_data(tmp_path / "data")
    sets = {"train-words": {"path": str(tmp_path / "data"), "task": "qa"}}
    run("encode_speech.py", tmp_path / "encode", monkeypatch,
        codec=str(tmp_path / "codec"), output=str(tmp_path / "codes"), sets=sets)  # fmt: skip
    rows = load_rows({"path": str(tmp_path / "codes"), "task": "speech"})
    assert all(len(row["letter_times"]) == len(character_ids(row["spoken"])) for row in rows)

    settings = {
        **TRAINER,
        "train": [{"path": str(tmp_path / "codes"), "task": "speech"}],
        "max_steps": 20,
        "save_strategy": "no",
        "cut": True,
    }
    voice = {"model": str(tmp_path / "ears"), "codec": str(tmp_path / "codec")}
    sizes = {"hidden_size": 16, **SMALL}
    with pytest.raises(ValueError, match="letters"):
        run(
            "output2_speak.py",
            tmp_path / "no",
            monkeypatch,
            **settings,
            **voice,
            decoder=sizes,
            output_dir=str(tmp_path),
        )
    letters = {**sizes, "letters": True, "project_inputs": True}
    run("output2_speak.py", tmp_path / "two", monkeypatch, **settings, **voice, decoder=letters,
        output_dir=str(tmp_path / "two"))  # fmt: skip
    run("output3_answer_aloud.py", tmp_path / "three", monkeypatch, **settings, model=str(tmp_path / "two"),
        output_dir=str(tmp_path / "three"))  # fmt: skip
    second, third = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "three"))
    assert third["speech_decoder.reader.token_letters"].any()
    changed = {name.split(".")[1] for name in second if not torch.equal(second[name], third[name])}
    assert changed == {"pre_layers", "prefix_layers", "prefix_proj"}
    config = json.loads((tmp_path / "three" / "config.json").read_text())["speech_decoder_config"]
    assert config["letters"] and config["num_tokens"] == len(
        FreezeOmniProcessor.from_pretrained(tmp_path / "three").tokenizer
    )
