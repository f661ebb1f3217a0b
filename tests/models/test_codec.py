# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The codec: reference numbers, padded batches, saving, training, errors."""

import json

import pytest
import torch
from golden_data import CHECKPOINTS, prefixed, tensors

from freeze_omni_hf.configuration import FreezeOmniCodecConfig
from freeze_omni_hf.models.codec import (
    FreezeOmniCodec,
    fold_weight_norm,
    released_codec_config,
    released_codec_state_dict,
)
from freeze_omni_hf.models.codec.quantizer import FreezeOmniQuantizer
from freeze_omni_hf.models.codec.spectrum import inverse_transform


TOLERANCE = 1e-4
LIGHT = {
    "encoder_type": "stft",
    "generator_type": "istft",
    "num_global_tokens": 0,
    "codebook_size": 32,
    "latent_size": 24,
    "upsample_rates": [4, 3, 4],
    "fft_size": 48,
    "stft_hidden_size": 16,
    "istft_hidden_size": 16,
    "initializer_range": 0.3,
}
RELEASED_KIND = {
    "codebook_size": 32,
    "latent_size": 64,
    "upsample_rates": [4, 2, 3],
    "upsample_kernel_sizes": [8, 4, 5],
    "upsample_initial_channel": 32,
    "speaker_channels": 16,
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 3]],
    "encoder_channels": 8,
    "num_global_tokens": 2,
    "global_feature_conv": [16, 8, 16, 3, 1],
    "global_tokens": [3, 5],
    "initializer_range": 0.2,
}


def build(settings: dict, **changes) -> FreezeOmniCodec:
    torch.manual_seed(0)
    codec = FreezeOmniCodec(FreezeOmniCodecConfig(**{**settings, **changes})).eval()
    for parameter in codec.parameters():  # biases too, or padding would stay zero by itself
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.1)
    return codec


def light_speaker() -> dict:
    return {**LIGHT, "num_global_tokens": 2, "global_feature_conv": [16, 8, 16, 5, 2]}


KINDS = {
    "light": LIGHT,
    "light with speaker": light_speaker(),
    "released": RELEASED_KIND,
    "released blocks 2": {**RELEASED_KIND, "resblock_type": "2", "global_feature_conv": [16, 8, 16, 5, 2]},
    "two groups, two layers": {**RELEASED_KIND, "num_code_groups": 2, "num_residual_layers": 2},
}
every_kind = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS.keys())


@pytest.fixture(scope="module")
def released() -> FreezeOmniCodec:
    config = released_codec_config(json.loads((CHECKPOINTS / "codec" / "model.json").read_text()))
    parts = torch.load(CHECKPOINTS / "codec" / "final.pt", map_location="cpu", weights_only=True)
    mapped = released_codec_state_dict(parts["generator"], parts["quantizer"], parts["encoder"])
    codec = FreezeOmniCodec(config)
    codec.load_state_dict(mapped.state_dict)
    return codec.eval()


def test_released_names_are_all_accounted_for():
    parts = torch.load(CHECKPOINTS / "codec" / "final.pt", map_location="cpu", weights_only=True)
    parts = {part: parts[part] for part in ("generator", "quantizer", "encoder")}
    mapped = released_codec_state_dict(**parts)
    names = {f"{part}.{name}" for part, weights in parts.items() for name in weights}
    assert set(mapped.used_keys) | set(mapped.ignored_keys) == names
    assert not set(mapped.used_keys) & set(mapped.ignored_keys)
    assert set(mapped.ignored_keys) == {"encoder.linear.0.weight", "encoder.linear.0.bias"}
    storages = [value.untyped_storage().data_ptr() for value in mapped.state_dict.values()]
    assert len(set(storages)) == len(storages)


@pytest.mark.parametrize("conv", [torch.nn.Conv1d(3, 5, 4), torch.nn.ConvTranspose1d(3, 5, 4)], ids=["conv", "up"])
def test_fold_weight_norm_equals_torch(conv):
    normed = torch.nn.utils.parametrizations.weight_norm(conv)
    torch.nn.init.normal_(normed.parametrizations.weight.original0)
    state = {
        "weight_g": normed.parametrizations.weight.original0,
        "weight_v": normed.parametrizations.weight.original1,
        "bias": normed.bias,
    }
    assert torch.allclose(fold_weight_norm(state)["weight"], normed.weight, atol=1e-6)
    with pytest.raises(KeyError, match="weight_v"):
        fold_weight_norm({"weight_g": state["weight_g"]})


def test_released_decode(released):
    golden = prefixed("codec.")
    codes, voice = golden["full_decode.codes"][..., 0], golden["global_tokens"][:, 0]
    with torch.no_grad():
        embedded = released.quantizer.embed(codes[..., None]).transpose(1, 2)
        speaker = released.quantizer.embed_global(voice)[..., None]
        audio = released.decode(codes, global_tokens=voice).audio_values
        default = released.decode(codes).audio_values
    assert torch.allclose(embedded, golden["full_decode.quant_emb"], atol=1e-6)
    assert torch.allclose(speaker, golden["full_decode.global_emb"], atol=1e-6)
    assert torch.allclose(audio, golden["full_decode.wav"][:, 0], atol=TOLERANCE)
    assert torch.equal(audio, default), "the default voice is that of the configuration"


def test_released_encode_and_round_trip(released):
    golden = prefixed("codec.encode.")
    with torch.no_grad():
        latents, speaker = released.encoder(golden["wav24k"])
        encoded = released.encode(golden["wav24k"][:, None])
        output = released(golden["wav24k"])
    assert torch.allclose(latents, golden["latent"], atol=TOLERANCE)
    assert torch.allclose(speaker, golden["global_latent"], atol=TOLERANCE)
    assert torch.equal(encoded.audio_codes, golden["codes"][..., 0])
    assert torch.equal(encoded.global_tokens, golden["global_tokens"][:, 0])
    assert torch.allclose(output.audio_values, tensors()["codec.roundtrip.wav"][:, 0], atol=TOLERANCE)
    assert torch.equal(output.audio_codes, encoded.audio_codes)


@pytest.mark.parametrize("case", ["g1r1", "g2r2"])
def test_quantizer_equals_reference(case):
    golden = prefixed(f"unit.quant.{case}.")
    weights = {name[6:]: value for name, value in golden.items() if name.startswith("state.")}
    books = released_codec_state_dict({}, weights, {}).state_dict
    books = {name.removeprefix("quantizer."): value for name, value in books.items()}
    groups = len([name for name in weights if name.startswith("quantizer_modules.")])
    speaker_books = len([name for name in weights if "globaltokens" in name])
    config = FreezeOmniCodecConfig(
        codebook_size=books["codebooks.0.weight"].shape[0],
        num_code_groups=groups,
        num_residual_layers=(len(books) - speaker_books) // groups,
        num_global_tokens=speaker_books,
    )
    quantizer = FreezeOmniQuantizer(config)
    quantizer.load_state_dict(books)
    output, voice = quantizer(golden["x"].transpose(1, 2)), quantizer.quantize_global(golden["g"])
    losses = [(part.codebook_loss, part.commitment_loss) for part in (output, voice)]
    loss = sum(
        config.codebook_loss_weight * first + config.commitment_loss_weight * second for first, second in losses
    )
    assert torch.equal(output.codes, golden["indices"]) and torch.equal(voice.codes, golden["g_indices"])
    assert torch.allclose(output.quantized.transpose(1, 2), golden["quantized"], atol=1e-5)
    assert torch.allclose(voice.quantized, golden["g_quantized"], atol=1e-5)
    assert torch.allclose(loss, golden["loss"], atol=1e-5)
    assert torch.allclose(quantizer.embed(golden["indices"]).transpose(1, 2), golden["embed"], atol=1e-6)
    assert torch.allclose(quantizer.embed_global(golden["g_indices"])[..., None], golden["embed_gst"], atol=1e-6)


@every_kind
def test_rows_of_a_padded_batch_equal_the_rows_alone(settings):
    codec = build(settings)
    token = codec.config.samples_per_token
    lengths = [9 * token + 7, 23 * token, token, 14 * token + token - 1]
    waves = [torch.randn(length) for length in lengths]
    batch = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True, padding_value=9.0)
    mask = torch.arange(batch.shape[1])[None] < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        both = codec(batch, padding_mask=mask)
        encoded = codec.encode(batch, padding_mask=mask)
        decoded = codec.decode(encoded.audio_codes, encoded.global_tokens, encoded.code_lengths)
        for row, wave in enumerate(waves):
            alone, count = codec(wave[None]), len(wave) // token
            assert encoded.code_lengths[row] == count and decoded.audio_lengths[row] == count * token
            difference = (both.latents[row, :count] - alone.latents[0]).abs().max()
            assert difference <= 1e-5 * alone.latents.abs().max().clamp(min=1), f"row {row}: {difference}"
            assert torch.equal(encoded.audio_codes[row, :count], alone.audio_codes[0])
            assert not encoded.audio_codes[row, count:].any()
            if alone.global_tokens is not None:
                assert torch.equal(encoded.global_tokens[row], alone.global_tokens[0])
            single = codec.decode(alone.audio_codes, alone.global_tokens).audio_values[0]
            assert single.shape == (count * token,) and single.std() > 1e-3
            assert torch.allclose(decoded.audio_values[row, : count * token], single, atol=1e-5)
            assert not decoded.audio_values[row, count * token :].any()


def test_released_padded_decode_equals_rows(released):
    codes = tensors()["codec.full_decode.codes"][0, :, 0]
    with torch.no_grad():
        batch = released.decode(torch.stack([codes, codes.flip(0)]), code_lengths=torch.tensor([7, len(codes)]))
        for row, alone in enumerate((codes[:7], codes.flip(0))):
            single = released.decode(alone[None]).audio_values[0]
            assert torch.allclose(batch.audio_values[row, : len(single)], single, atol=1e-5)


def test_padding_may_hold_any_id():
    codec = build(LIGHT)
    codes = torch.randint(0, 32, (2, 6))
    marked = codes.clone()
    marked[0, 4:] = -100
    lengths = torch.tensor([4, 6])
    with torch.no_grad():
        first = codec.decode(codes, code_lengths=lengths).audio_values
        assert torch.equal(first, codec.decode(marked, code_lengths=lengths).audio_values)


@every_kind
def test_context_is_the_reach_of_a_token(settings):
    codec = build(settings)
    context, token = codec.context_tokens, codec.config.samples_per_token
    size = 2 * context + 5
    codes = torch.randint(0, 32, (1, size, codec.config.num_codebooks))
    other = codes.clone()
    other[:, size // 2] = (codes[:, size // 2] + 1) % 32
    codes, other = (value[..., 0] if codec.config.num_codebooks == 1 else value for value in (codes, other))
    with torch.no_grad():
        changed = (codec.decode(codes).audio_values != codec.decode(other).audio_values)[0].nonzero()[:, 0]
    reach = max(size // 2 - int(changed.min()) // token, int(changed.max()) // token - size // 2)
    # The formula is an upper bound; it must hold and not waste more than a token.
    assert context - 1 <= reach <= context


def test_speaker_vector_changes_the_sound_where_a_stage_takes_it():
    codes = torch.arange(12)[None]
    with torch.no_grad():
        for settings, heard in ((RELEASED_KIND, True), ({**RELEASED_KIND, "speaker_channels": 24}, False)):
            codec = build(settings)
            first, second = (codec.decode(codes, voice).audio_values for voice in ([1, 2], [7, 9]))
            assert (codec.config.speaker_stage is not None) == heard
            assert torch.equal(first, second) != heard


def test_released_speaker_stage():
    assert FreezeOmniCodecConfig().speaker_stage == 1
    assert FreezeOmniCodecConfig(upsample_initial_channel=256).speaker_stage == 0
    assert FreezeOmniCodecConfig().samples_per_token == 600 and FreezeOmniCodecConfig().tokens_per_second == 40


@every_kind
def test_config_and_weights_survive_saving(settings, tmp_path):
    codec = build(settings)
    codec.save_pretrained(tmp_path)
    loaded = FreezeOmniCodec.from_pretrained(tmp_path)
    place = {"_name_or_path": None, "dtype": None}
    assert loaded.config.to_dict() | place == codec.config.to_dict() | place
    for kind in ("named_parameters", "named_buffers"):
        before, after = dict(getattr(codec, kind)()), dict(getattr(loaded, kind)())
        assert before.keys() == after.keys()
        for name, value in before.items():
            assert torch.equal(value, after[name]), name
    wave = torch.randn(1, 10 * codec.config.samples_per_token)
    with torch.no_grad():
        assert torch.allclose(codec(wave).audio_values, loaded.eval()(wave).audio_values, atol=1e-5)


@pytest.mark.parametrize("settings", [RELEASED_KIND, LIGHT, {"codebook_size": 64, "global_codebook_size": 1024}])
def test_config_round_trip(settings):
    config = FreezeOmniCodecConfig(**settings)
    assert FreezeOmniCodecConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    assert FreezeOmniCodecConfig.from_dict(json.loads(config.to_json_string())).to_dict() == config.to_dict()
    assert FreezeOmniCodecConfig.from_dict(config.to_diff_dict()).to_dict() == config.to_dict()


def test_weights_of_a_new_model_are_finite_and_alive():
    codec = FreezeOmniCodec(FreezeOmniCodecConfig(**{**LIGHT, "initializer_range": 0.02}))
    with torch.device("meta"):
        FreezeOmniCodec(FreezeOmniCodecConfig(**RELEASED_KIND))
    assert all(torch.isfinite(value).all() for value in codec.state_dict().values())
    assert all((block.scale == 1).all() for block in codec.generator.frame_blocks)


def test_light_codec_is_light():
    with torch.device("meta"):
        codec = FreezeOmniCodec(
            FreezeOmniCodecConfig(encoder_type="stft", generator_type="istft", num_global_tokens=0)
        )
    assert 5e6 < sum(parameter.numel() for parameter in codec.parameters()) < 7e6
    assert codec.context_tokens <= 10, "the released overlap should make light windows exact"


@every_kind
def test_gradients_reach_every_weight(settings):
    codec = build(settings).train()
    wave = torch.randn(3, 8 * codec.config.samples_per_token)
    mask = torch.ones_like(wave)
    mask[1, -2 * codec.config.samples_per_token :] = 0
    output = codec(wave, padding_mask=mask)
    (output.audio_values.square().mean() + output.quantizer_loss).backward()
    without = {name for name, parameter in codec.named_parameters() if parameter.grad is None}
    assert not without
    codec.zero_grad()
    codec(wave).audio_values.square().mean().backward()
    assert codec.encoder.parameters().__next__().grad.abs().sum() > 0, "straight through the quantiser"
    assert all(book.weight.grad is None for book in codec.quantizer.codebooks)


def test_reset_codes_uses_every_latent():
    quantizer = FreezeOmniQuantizer(FreezeOmniCodecConfig(**LIGHT))
    latents = torch.randn(40, 24)
    assert quantizer.reset_codes(latents) == 32
    assert quantizer(latents[None]).codes.unique().numel() == 32
    unused = torch.zeros(32, dtype=torch.bool)
    unused[[3, 7]] = True
    before = quantizer.codebooks[0].weight.clone()
    quantizer.reset_codes(latents + 5, unused)
    changed = (quantizer.codebooks[0].weight != before).any(dim=1)
    assert torch.equal(changed, unused)


@every_kind
def test_bfloat16_runs(settings):
    codec = build(settings).to(torch.bfloat16)
    token = codec.config.samples_per_token
    with torch.no_grad():
        encoded = codec.encode(torch.randn(2, 12 * token))
        decoded = codec.decode(encoded.audio_codes, encoded.global_tokens, torch.tensor([12, 5]))
        reference = codec.float().decode(encoded.audio_codes, encoded.global_tokens, torch.tensor([12, 5]))
    assert decoded.audio_values.dtype == torch.float32
    assert torch.isfinite(decoded.audio_values).all()
    assert (decoded.audio_values - reference.audio_values).abs().mean() < 0.2 * reference.audio_values.abs().mean()


def test_autocast_does_not_change_the_codes():
    codec = build(LIGHT)
    latents = torch.randn(1, 50, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = codec.quantizer(latents).codes
    assert torch.equal(cast, codec.quantizer(latents).codes)


def test_inverse_transform_restores_a_waveform():
    fft_size, hop = 48, 12
    wave = torch.randn(2, 20 * hop)
    margin = (fft_size - hop) // 2
    frames = torch.nn.functional.pad(wave, (margin, margin)).unfold(-1, fft_size, hop)
    spectrum = torch.fft.rfft(frames * torch.hann_window(fft_size))
    restored = inverse_transform(spectrum.abs().log(), spectrum.angle(), fft_size, hop)
    assert restored.shape == wave.shape
    assert torch.allclose(restored, wave, atol=1e-4)


def test_tuples_on_request():
    codec = build(LIGHT)
    codes = codec.encode(torch.randn(1, 480), return_dict=False)[0]
    assert isinstance(codec.decode(codes, return_dict=False), tuple)
    assert isinstance(codec(torch.randn(1, 480), return_dict=False), tuple)


@pytest.mark.parametrize(
    ("audio", "mask", "message"),
    [
        (torch.zeros(1, 2, 480), None, "2 channels"),
        (torch.zeros(480), None, r"\(480,\)"),
        (torch.zeros(1, 0), None, "0 samples"),
        (torch.zeros(1, 47), None, "47 samples.*48"),
        (torch.full((1, 480), float("nan")), None, "NaN"),
        (torch.zeros(1, 480), torch.ones(1, 470), "470.*480"),
        (torch.zeros(1, 480), torch.arange(480)[None] > 20, "right padding"),
        (torch.zeros(1, 480), torch.arange(480)[None] < 20, "a row of 20 samples"),
    ],
)
def test_bad_audio_is_refused(audio, mask, message):
    with pytest.raises(ValueError, match=message):
        build(LIGHT).encode(audio, padding_mask=mask)


@pytest.mark.parametrize(
    ("codes", "lengths", "message"),
    [
        (torch.tensor([[1, 32]]), None, "id 32.*32 entries"),
        (torch.tensor([[1, -1]]), None, "id -1"),
        (torch.tensor([1, 2]), None, r"\(2,\)"),
        (torch.zeros(1, 0, dtype=torch.long), None, "empty"),
        (torch.zeros(1, 3), None, "integer"),
        (torch.zeros(1, 3, dtype=torch.long), torch.tensor([4]), "a row of 4 tokens"),
        (torch.zeros(1, 3, dtype=torch.long), torch.tensor([0]), "a row of 0 tokens"),
        (torch.zeros(1, 3, 2, dtype=torch.long), None, r"\(1, 3, 2\)"),
    ],
)
def test_bad_codes_are_refused(codes, lengths, message):
    with pytest.raises(ValueError, match=message):
        build(LIGHT).decode(codes, code_lengths=lengths)


@pytest.mark.parametrize("voice", [[1, 2, 3], torch.zeros(3, 2, dtype=torch.long), [1, 32]])
def test_bad_voices_are_refused(voice):
    with pytest.raises(ValueError, match="global.token"):
        build(RELEASED_KIND).decode(torch.tensor([[1, 2]]), global_tokens=voice)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_type": "x"}, "encoder_type='x'"),
        ({"generator_type": "x"}, "generator_type='x'"),
        ({"resblock_type": "3"}, "resblock_type='3'"),
        ({"latent_size": 96}, "64.*latent_size=96"),
        ({"num_code_groups": 3}, "latent_size=64.*num_code_groups=3"),
        ({"upsample_initial_channel": 20}, "upsample_initial_channel=20.*3 stages"),
        ({"upsample_kernel_sizes": [8, 4, 4]}, "kernel of 4.*rate 3"),
        ({"upsample_kernel_sizes": [8, 4]}, r"\[4, 2, 3\].*\[8, 4\]"),
        ({"resblock_dilation_sizes": [[1, 3, 5]]}, r"\[3, 5\].*\[\[1, 3, 5\]\]"),
        ({"resblock_dilation_sizes": [[1], [1]]}, "needs 3 dilations"),
        ({"global_tokens": [1]}, "1 ids.*num_global_tokens=2"),
        ({"global_tokens": [1, 32]}, "id 32.*codebook of 32"),
        ({"global_feature_conv": [128, 8, 16, 3, 1]}, "128.*16 channels"),
        ({"global_feature_conv": [16, 8, 32, 3, 1]}, "32.*speaker_channels=16"),
        ({"num_global_tokens": 3}, "16.*num_global_tokens=3"),
        ({"generator_type": "istft", "fft_size": 7}, "fft_size=7"),
        ({"generator_type": "istft", "frames_per_token": 5}, "samples_per_token=24.*frames_per_token=5"),
    ],
)
def test_bad_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FreezeOmniCodecConfig(**{**RELEASED_KIND, **changes})
