# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Configurations: round trips, and wrong combinations refused with both values."""

import pytest
import tiny
from transformers import AutoConfig

from freeze_omni_hf import (
    FreezeOmniAdapterConfig,
    FreezeOmniConfig,
    FreezeOmniSpeechDecoderConfig,
    FreezeOmniSpeechEncoderConfig,
)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2"])
def test_round_trip_with_any_llm(tmp_path, family):
    config = tiny.config(tiny.text_config(family), llm_name_or_path="somewhere", num_states=5)
    config.save_pretrained(tmp_path)
    for loaded in (FreezeOmniConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
        assert type(loaded.text_config) is type(config.text_config)
        assert loaded.get_text_config().hidden_size == 32
    assert FreezeOmniSpeechEncoderConfig.from_pretrained(tmp_path).hidden_size == 16
    assert FreezeOmniSpeechDecoderConfig.from_pretrained(tmp_path).codebook_size == 32


def test_model_without_voice_round_trips(tmp_path):
    tiny.config(voice=False).save_pretrained(tmp_path)
    assert not FreezeOmniConfig.from_pretrained(tmp_path).has_voice


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"adapter_config": FreezeOmniAdapterConfig(input_size=17, output_size=32)}, "17 .*16"),
        ({"adapter_config": FreezeOmniAdapterConfig(input_size=16, output_size=33)}, "33 .*32"),
        ({"speech_decoder_config": {"llm_hidden_size": 48, "codebook_size": 32}}, "48 .*32"),
        ({"speech_decoder_config": {"llm_hidden_size": 32, "codebook_size": 31}}, "31 .*32"),
        ({"speech_decoder_config": None}, "Only codec_config"),
        ({"num_states": 2}, "num_states=2"),
        ({"speech_encoder_config": {"hidden_size": 16, "num_attention_heads": 2, "chunk_size": 3}}, "chunk_size=3"),
    ],
)
def test_wrong_combinations_name_both_values(change, words):
    parts = {name: getattr(tiny.config(), name) for name in FreezeOmniConfig.sub_configs_defaults}
    with pytest.raises(ValueError, match=words):
        FreezeOmniConfig(**{**parts, **change})


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (FreezeOmniSpeechEncoderConfig, {"hidden_size": 10, "num_attention_heads": 4}, "10 .*4"),
        (FreezeOmniSpeechEncoderConfig, {"position_rule": "rope"}, "rope"),
        (FreezeOmniSpeechEncoderConfig, {"input_layer": "conv"}, "conv"),
        (FreezeOmniSpeechEncoderConfig, {"chunk_size": 0}, "chunk_size=0"),
        (FreezeOmniSpeechEncoderConfig, {"left_chunks": -2}, "left_chunks=-2"),
        (FreezeOmniSpeechEncoderConfig, {"position_rule": "released", "left_chunks": -1}, "left_chunks=-1"),
        (FreezeOmniAdapterConfig, {"adapter_type": "mlp"}, "mlp"),
        (FreezeOmniAdapterConfig, {"num_convs": 3}, "num_convs=3"),
        (FreezeOmniAdapterConfig, {"kernel_size": 1}, "kernel_size=1"),
        (FreezeOmniAdapterConfig, {"norm": "group"}, "group"),
        (FreezeOmniSpeechDecoderConfig, {"hidden_size": 18, "num_attention_heads": 6}, "18"),
    ],
)
def test_wrong_sizes_are_named(kind, change, words):
    with pytest.raises(ValueError, match=words):
        kind(**change)


def test_rows_per_token():
    view = FreezeOmniSpeechDecoderConfig(llm_hidden_size=3584, hidden_size=896)
    assert (view.rows_per_token, view.uses_projection) == (4, False)
    other = FreezeOmniSpeechDecoderConfig(llm_hidden_size=576, hidden_size=384, num_attention_heads=6)
    assert (other.rows_per_token, other.uses_projection) == (1, True)
