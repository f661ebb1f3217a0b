# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Conversion of the released layout, and the reference answer through the public door."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from golden_data import CHECKPOINTS, LLM, facts, tensors
from safetensors import safe_open
from transformers import AutoModelForCausalLM, pipeline

from freeze_omni_hf import FreezeOmniForConditionalGeneration, FreezeOmniProcessor, state_hash
from freeze_omni_hf.cli import main
from freeze_omni_hf.conversion import ConversionError, convert
from freeze_omni_hf.conversion.released import load_cmvn


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "model"
    report = convert(CHECKPOINTS, str(LLM), folder)
    assert not report.missing
    assert all(reason for reason in report.ignored.values())
    return folder


@pytest.fixture
def broken(tmp_path) -> Path:
    """A copy of the released layout to break."""
    return Path(shutil.copytree(CHECKPOINTS, tmp_path / "checkpoints"))


def reference_sound() -> torch.Tensor:
    golden, pieces = tensors(), []
    for index, segment in enumerate(facts()["segments"]):
        pieces += [golden[f"tts.{index}.audio.{j}"].flatten() for j in range(segment["n_audio"])]
    return torch.cat(pieces)


def test_pipeline_returns_the_reference_text_and_sound(converted):
    pipe = pipeline("speech-to-speech", model=str(converted))
    answer = pipe(tensors()["input.wav_16k"].numpy(), generate_kwargs={"do_sample": False})
    assert answer["text"] == facts()["text.whole"]
    sound = torch.from_numpy(answer["audio"])
    torch.testing.assert_close(sound, reference_sound(), atol=1e-4, rtol=0)


@torch.no_grad()
def test_generate_gives_the_reference_ids_states_and_logits(converted):
    golden, known = tensors(), facts()
    model = FreezeOmniForConditionalGeneration.from_pretrained(converted, llm_kwargs={"dtype": torch.float32})
    processor = FreezeOmniProcessor.from_pretrained(converted)
    sound = {"type": "audio", "array": golden["input.wav_16k"], "sampling_rate": 16000}
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [sound]}], tokenize=True, return_dict=True, add_generation_prompt=True
    )
    output = model.generate(
        **inputs, do_sample=False, tokenizer=processor.tokenizer, return_dict_in_generate=True, output_logits=True
    )
    prompt = inputs["input_ids"].shape[1]
    assert output.sequences[0, prompt:].tolist() == known["text.ids_incl_eod"]
    torch.testing.assert_close(torch.cat(output.logits), golden["llm.speak.logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(output.hidden_states[0], golden["llm.speak.hidden"], atol=1e-4, rtol=0)
    for index, segment in enumerate(known["segments"]):
        piece = output.segments[0][index]
        assert piece.text == segment["text"]
        assert piece.text_ids.tolist() == segment["text_ids"]
        assert len(piece.hidden) == segment["n_hidden"]
        assert piece.speech_tokens.tolist() == golden[f"tts.{index}.tokens"].tolist()
        assert (piece.finish_reason == "end") == segment["eos"]
    # The conversation up to the end of the audio, as the released model prefills it.
    whole = model(**inputs, use_cache=True)
    names = sorted(name for name in golden if name.startswith("llm.listen.") and name.endswith("state_logits"))
    states = torch.cat([golden[name] for name in names], dim=1)
    hidden = torch.cat([golden[name.replace("state_logits", "hidden")] for name in names], dim=1)
    start = golden["llm.pre.input_ids"].shape[1]
    torch.testing.assert_close(whole.state_logits[:, start : start + states.shape[1]], states, atol=1e-4, rtol=0)
    torch.testing.assert_close(whole.last_hidden_state[:, start : start + hidden.shape[1]], hidden, atol=1e-4, rtol=0)
    end = golden["llm.kv_after_listen.k"].shape[3]
    for layer, (keys, values) in enumerate(
        zip(golden["llm.kv_after_listen.k"], golden["llm.kv_after_listen.v"], strict=True)
    ):
        cached = whole.past_key_values.layers[layer]
        torch.testing.assert_close(cached.keys[:, :, :end], keys, atol=1e-4, rtol=0)
        torch.testing.assert_close(cached.values[:, :, :end], values, atol=1e-4, rtol=0)


@torch.no_grad()
def test_second_turn_gives_the_reference(converted):
    golden, known = tensors(), facts()
    model = FreezeOmniForConditionalGeneration.from_pretrained(converted, llm_kwargs={"dtype": torch.float32})
    processor = FreezeOmniProcessor.from_pretrained(converted)
    first = known["text.ids_incl_eod"]
    sound = golden["input.wav_16k"]
    chunks = len([name for name in golden if name.startswith("turn2.listen.") and name.endswith("state_logits")])
    samples = chunks * processor.feature_extractor.chunk_frames * 160
    chat = [
        {"role": "user", "content": [{"type": "audio", "array": sound, "sampling_rate": 16000}]},
        {"role": "assistant", "content": processor.decode(first)},
        {"role": "user", "content": [{"type": "audio", "array": sound[:samples], "sampling_rate": 16000}]},
    ]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, add_generation_prompt=True)
    ids = inputs["input_ids"][0].tolist()
    assert _contains(ids, [*first, *golden["llm.chat.prefix_ids"][0].tolist()])
    output = model.generate(**inputs, do_sample=False, generation_mode="text", max_new_tokens=len(known["turn2.ids"]))
    assert output[0, len(ids) :].tolist() == known["turn2.ids"]


def _contains(ids: list[int], part: list[int]) -> bool:
    return any(ids[i : i + len(part)] == part for i in range(len(ids)))


def test_settings_are_the_released_ones(converted):
    server = json.loads((CHECKPOINTS / "server.json").read_text())
    settings = json.loads((converted / "generation_config.json").read_text())
    assert settings["eos_token_id"] == facts()["eod_id"]
    assert settings["speech_top_k"] == server["decoder_top_k"]
    assert settings["codec_chunk_size"] == server["decoder_chunk_size"]
    assert settings["codec_overlap"] == server["decoder_chunk_overlap_size"]
    assert settings["codec_first_chunk_size"] == server["decoder_first_chunk_size"]
    assert settings["speech_penalty_window"] == server["decoder_penalty_window_size"]
    assert (settings["top_k"], settings["top_p"], settings["temperature"]) == (20, 0.8, 0.8)
    assert settings["segment_text_cleaner"] == "released"
    config = json.loads((converted / "config.json").read_text())
    assert config["speech_encoder_config"]["position_rule"] == "released"
    extractor = json.loads((converted / "processor_config.json").read_text())["feature_extractor"]
    assert extractor["chunk_frames"] == facts()["fbank_chunk_frames"]


def test_the_llm_is_neither_loaded_nor_written(converted, monkeypatch, tmp_path):
    with safe_open(converted / "model.safetensors", "pt") as file:
        assert not any(name.startswith("language_model.") for name in file.keys())  # noqa: SIM118

    def refuse(*args, **kwargs):
        raise AssertionError("the LLM must not be loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setattr(AutoModelForCausalLM, "from_config", refuse)
    convert(CHECKPOINTS, str(LLM), tmp_path / "again")


def test_llm_is_unchanged_and_weights_keep_their_bits(converted):
    llm = AutoModelForCausalLM.from_pretrained(LLM, dtype=torch.float32)
    before = state_hash(llm)
    model = FreezeOmniForConditionalGeneration.from_pretrained(converted, language_model=llm)
    assert state_hash(model.language_model) == before
    weights = torch.load(CHECKPOINTS / "audiollm/final.pt", weights_only=True)
    assert torch.equal(model.prompt_embeddings.weight, weights["prompt_embeddings.weight"].float())
    assert torch.equal(model.adapter.proj.weight, weights["adpter.project.weight"].float())


def test_command_line_reports_every_tensor(tmp_path, capsys):
    arguments = ["convert", str(CHECKPOINTS), "--llm", str(LLM), "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "used     audiollm/final.pt: predictor_head.weight" in printed
    assert "ignored  codec/final.pt: encoder.linear.0.weight" in printed
    assert main(arguments) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "keep"])
def test_types_of_the_written_weights(tmp_path, dtype):
    from freeze_omni_hf.conversion.convert import DTYPES, run

    run(Namespace(checkpoints=CHECKPOINTS, llm=str(LLM), output=tmp_path / "m", dtype=dtype, force=False))
    with safe_open(tmp_path / "m/model.safetensors", "pt") as file:
        found = file.get_tensor("adapter.proj.weight").dtype
    stored = torch.load(CHECKPOINTS / "audiollm/final.pt", weights_only=True)["adpter.project.weight"].dtype
    assert found == (DTYPES[dtype] or stored)


class TestRefused:
    def run(self, folder, llm=LLM, **kwargs):
        output = folder.parent / "out"
        with pytest.raises(ConversionError) as error:
            convert(folder, str(llm), output, **kwargs)
        assert not output.exists(), "nothing is left behind"
        assert not list(folder.parent.glob(".out*"))
        return str(error.value)

    @pytest.mark.parametrize("file", ["audiollm/final.pt", "decoder/final.pt", "codec/final.pt", "server.json"])
    def test_missing_file(self, broken, file):
        (broken / file).unlink()
        assert file in self.run(broken)

    @pytest.mark.parametrize("file", ["audiollm/final.pt", "decoder/final.pt", "codec/final.pt"])
    def test_truncated_file(self, broken, file):
        path = broken / file
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert file in self.run(broken) and "truncated" in self.run(broken)

    def test_missing_and_mismatched_tensors(self, broken):
        path = broken / "audiollm/final.pt"
        weights = torch.load(path, weights_only=True)
        del weights["predictor_head.weight"]
        weights["prompt_embeddings.weight"] = weights["prompt_embeddings.weight"][:-1]
        torch.save(weights, path)
        words = self.run(broken)
        assert "state_head.weight is missing" in words and "prompt_embeddings.weight is" in words

    def test_pickle_with_code(self, broken):
        torch.save({"x": Path("x")}, broken / "decoder/final.pt")
        assert "objects other than tensors" in self.run(broken)

    def test_settings_that_cannot_stream(self, broken):
        path = broken / "audiollm/train.yaml"
        settings = yaml.safe_load(path.read_text())
        settings["encoder_conf"]["para_conf"]["transformer"]["transformer-pos-enc-class"] = "abs-enc"
        path.write_text(yaml.safe_dump(settings))
        assert "abs-enc" in self.run(broken)

    def test_settings_that_contradict_each_other(self, broken):
        path = broken / "audiollm/train.yaml"
        settings = yaml.safe_load(path.read_text())
        settings["encoder_conf"]["para_conf"]["transformer"]["transformer-left_chunks"] = -1
        path.write_text(yaml.safe_dump(settings))
        assert "left_chunks=-1" in self.run(broken)
        del settings["encoder_conf"]
        path.write_text(yaml.safe_dump(settings))
        assert "encoder_conf" in self.run(broken)

    def test_other_llm(self, broken, tmp_path):
        llm = tiny.language_model(width=48)
        llm.save_pretrained(tmp_path / "llm")
        tiny.tokenizer().save_pretrained(tmp_path / "llm")
        assert "48" in self.run(broken, tmp_path / "llm")
        assert "nowhere" in self.run(broken, tmp_path / "nowhere")

    def test_no_folder(self, tmp_path):
        assert "no folder" in self.run(tmp_path / "none")


def test_kaldi_text_statistics_equal_json(tmp_path):
    stats = json.loads((CHECKPOINTS / "audiollm/global_cmvn").read_text()) if _is_json() else None
    if stats is None:
        pytest.skip("this reference set has Kaldi statistics")
    mean, var = stats["mean_stat"], stats["var_stat"]
    words = ["[", *map(repr, mean), repr(stats["frame_num"]), *map(repr, var), "0", "]"]
    (tmp_path / "cmvn").write_text(" ".join(words))
    for found, expected in zip(
        load_cmvn(tmp_path / "cmvn", False), load_cmvn(CHECKPOINTS / "audiollm/global_cmvn", True), strict=True
    ):
        assert torch.equal(found, expected)
    golden_mean, golden_scale = tensors()["cmvn.mean"], tensors()["cmvn.istd"]
    torch.testing.assert_close(load_cmvn(tmp_path / "cmvn", False)[0], golden_mean)
    torch.testing.assert_close(load_cmvn(tmp_path / "cmvn", False)[1], golden_scale)
    (tmp_path / "cmvn").write_bytes(b"\0B123")
    with pytest.raises(ConversionError, match="binary"):
        load_cmvn(tmp_path / "cmvn", False)


def _is_json() -> bool:
    return (CHECKPOINTS / "audiollm/global_cmvn").read_bytes()[:1] == b"{"
