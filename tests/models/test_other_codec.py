# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""A codec of another architecture speaks for the decoder: a tiny DAC with one codebook."""

import pytest
import tiny
import torch
from transformers import AutoModelForAudioTokenization, DacConfig, DacModel

from freeze_omni_hf import FreezeOmniForConditionalGeneration, FreezeOmniOtherCodec, FreezeOmniOtherCodecConfig


def dac(codebooks: int = 1) -> DacModel:
    torch.manual_seed(0)
    config = DacConfig(
        encoder_hidden_size=8,
        downsampling_ratios=[5, 4],
        decoder_hidden_size=32,
        n_codebooks=codebooks,
        codebook_size=32,
        codebook_dim=4,
        sampling_rate=16000,
    )
    return DacModel(config).eval()


@pytest.fixture
def codec() -> FreezeOmniOtherCodec:
    return FreezeOmniOtherCodec.around(dac())


def test_says_of_itself_what_ours_does(codec):
    config = codec.config
    assert (config.sampling_rate, config.codebook_size, config.samples_per_token) == (16000, 32, 20)
    assert config.tokens_per_second == 800 and config.num_codebooks == 1 and config.num_global_tokens == 0
    with pytest.raises(ValueError, match="one codebook"):
        FreezeOmniOtherCodec.around(dac(2))


def test_sound_is_that_of_the_codec_itself(codec):
    wave = 0.1 * torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    output = codec.encode(wave)
    direct = codec.inner.encode(wave[:, None]).audio_codes[:, 0]
    assert output.audio_codes.tolist() == direct[:, :100].tolist() and output.code_lengths.tolist() == [100]
    sound = codec.decode(output.audio_codes).audio_values
    expected = codec.inner.decode(audio_codes=output.audio_codes[:, None]).audio_values.reshape(1, -1)
    assert sound.shape == (1, 2000)
    torch.testing.assert_close(sound[:, : expected.shape[1]], expected[:, :2000].clamp(-1, 1))
    # Rows of different length are what each is alone.
    both = torch.zeros(2, 2000)
    both[0], both[1, :1200] = wave[0], wave[0, :1200]
    mask = torch.tensor([[1] * 2000, [1] * 1200 + [0] * 800])
    rows = codec.encode(both, mask)
    assert rows.code_lengths.tolist() == [100, 60]
    assert rows.audio_codes[1, :60].tolist() == codec.encode(wave[:, :1200]).audio_codes[0].tolist()
    padded = codec.decode(rows.audio_codes, code_lengths=rows.code_lengths)
    assert padded.audio_lengths.tolist() == [2000, 1200] and not padded.audio_values[1, 1200:].any()
    with pytest.raises(ValueError, match="outside the codebook"):
        codec.decode(torch.tensor([[32]]))
    with pytest.raises(ValueError, match="voice cannot be chosen"):
        codec.decode(torch.tensor([[1]]), global_tokens=[1])


def test_stream_joins_to_the_sound_of_its_windows(codec):
    codes = torch.randint(32, (150,), generator=torch.Generator().manual_seed(1))
    (windows,) = codec.decode_windows([codes], 40, 10)
    stream = codec.open_stream(40, 10)
    pieces = [stream.push(part) for part in codes.split(7)] + [stream.finish()]
    torch.testing.assert_close(torch.cat(pieces), windows)
    assert len(windows) == 150 * 20


def test_takes_the_codecs_place_in_a_model(codec, tmp_path):
    """By configuration: saved, loaded and heard in `generate`."""
    llm = tiny.language_model()
    config = tiny.config(llm.config)
    config.codec_config = codec.config
    from freeze_omni_hf.models.freeze_omni import without_language_model

    with without_language_model():
        model = FreezeOmniForConditionalGeneration(config).eval()
    assert isinstance(model.codec, FreezeOmniOtherCodec) and isinstance(model.codec.inner, DacModel)
    model.codec.load_state_dict(codec.state_dict())
    model.attach_language_model(llm)
    model.generation_config.speech_max_tokens = 30
    model.save_pretrained(tmp_path)
    loaded = FreezeOmniForConditionalGeneration.from_pretrained(tmp_path, language_model=llm).eval()
    assert isinstance(loaded.config.codec_config, FreezeOmniOtherCodecConfig)
    assert isinstance(loaded.config.codec_config.inner_config, DacConfig)
    for name, value in model.codec.state_dict().items():
        torch.testing.assert_close(loaded.codec.state_dict()[name], value)
    settings = {"generation_mode": "audio", "do_sample": False, "max_new_tokens": 4, "return_dict_in_generate": True}
    ids = torch.tensor([[72, 105, 33]])
    output = loaded.generate(ids, **settings)
    tokens = output.speech_tokens[0]
    assert len(output.audio[0]) == 20 * len(tokens) > 0
    assert torch.equal(output.audio[0], model.generate(ids, **settings).audio[0])
    codec.save_pretrained(tmp_path / "codec")
    again = AutoModelForAudioTokenization.from_pretrained(tmp_path / "codec")
    wave = 0.1 * torch.randn(1, 400)
    assert torch.equal(again.encode(wave).audio_codes, codec.encode(wave).audio_codes)
