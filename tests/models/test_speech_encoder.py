# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Speech encoder: reference numbers, streaming equals offline, rows do not see each other, nothing sees the future."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from golden_data import CHECKPOINTS, facts, tensors
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from freeze_omni_hf.configuration import FreezeOmniSpeechEncoderConfig
from freeze_omni_hf.conversion import released
from freeze_omni_hf.conversion.whisper import whisper_encoder_config, whisper_encoder_state_dict
from freeze_omni_hf.models import FreezeOmniSpeechEncoder, FreezeOmniSpeechEncoderForCTC, SpeechEncoderCache
from freeze_omni_hf.models.speech_encoder import chunk_mask, draw_dynamic_chunks, sinusoids


def reference_encoder(attention: str = "sdpa", **changes) -> FreezeOmniSpeechEncoder:
    settings = released.load_train_settings(CHECKPOINTS / "audiollm/train.yaml")
    config = released.encoder_config(settings)
    config._attn_implementation = attention
    for name, value in changes.items():
        setattr(config, name, value)
    encoder = FreezeOmniSpeechEncoder(config).eval()
    weights = released.load_pickle(CHECKPOINTS / "audiollm/final.pt")
    names = {name: released.rename(name, released.AUDIO_RULES) for name in weights}
    prefix = "speech_encoder."
    encoder.load_state_dict(
        {new[len(prefix) :]: weights[old].float() for old, new in names.items() if new and new.startswith(prefix)}
    )
    return encoder


def tiny(rule: str = "relative", **kwargs) -> FreezeOmniSpeechEncoder:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = FreezeOmniSpeechEncoderConfig(**{**sizes, "left_chunks": 3, "position_rule": rule, **kwargs})
    encoder = FreezeOmniSpeechEncoder(config).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return encoder


def stream(encoder: FreezeOmniSpeechEncoder, features: torch.Tensor, chunks: int = 1, cache=None):
    outputs = []
    for piece in features.split(encoder.config.chunk_frames * chunks, dim=1):
        output = encoder(piece, cache=cache, use_cache=True)
        outputs.append(output.last_hidden_state)
        cache = output.cache
    return torch.cat(outputs, dim=1), cache


def new_frames() -> torch.Tensor:
    """Frames of the reference stream, without the three that overlap."""
    return tensors()["frontend.fbank_chunks"][:, 3:]


class TestReference:
    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    @torch.no_grad()
    def test_stream(self, attention):
        encoder, golden, cache = reference_encoder(attention), tensors(), None
        for index, chunk in enumerate(new_frames()):
            output = encoder(chunk[None], cache=cache, use_cache=True)
            cache = output.cache
            torch.testing.assert_close(
                output.last_hidden_state[0], golden["encoder.out_chunks"][index], atol=1e-4, rtol=0
            )
        for layer in range(encoder.config.num_hidden_layers):
            torch.testing.assert_close(cache.keys[layer], golden[f"encoder.cache.{layer}.k"], atol=1e-4, rtol=0)
            torch.testing.assert_close(cache.values[layer], golden[f"encoder.cache.{layer}.v"], atol=1e-4, rtol=0)

    @torch.no_grad()
    def test_offline_equals_the_released_stream(self):
        """The released rule lags behind its own mask once the left context is full; ours follows the stream."""
        encoder = reference_encoder()
        output = encoder(new_frames().flatten(0, 1)[None]).last_hidden_state
        torch.testing.assert_close(output[0], tensors()["encoder.out_chunks"].flatten(0, 1), atol=1e-4, rtol=0)

    @torch.no_grad()
    def test_normalisation_and_subsampling(self):
        encoder, golden = reference_encoder(), tensors()
        normalised = (golden["frontend.fbank_chunks"] - encoder.feature_mean) * encoder.feature_scale
        torch.testing.assert_close(normalised, golden["encoder.cmvn_out"], atol=1e-4, rtol=0)
        torch.testing.assert_close(encoder.subsampling(normalised), golden["encoder.subsample_out"], atol=1e-4, rtol=0)

    @torch.no_grad()
    def test_positions_at_the_end_of_the_table(self):
        encoder, golden = reference_encoder(), tensors()
        _, cache = stream(encoder, new_frames().flatten(0, 1)[None])
        cache = dataclasses.replace(
            cache,
            lengths=torch.tensor([facts()["unit.pe_wrap.start_pe_index"]]),
            frames=golden["frontend.fbank_chunks"][:1, :3],
        )
        for index, expected in enumerate(golden["unit.pe_wrap.out"]):
            output = encoder(new_frames()[index][None], cache=cache, use_cache=True)
            cache = output.cache
            torch.testing.assert_close(output.last_hidden_state[0], expected, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("name", ["full", "chunk", "chunk_all_left", "chunk_left1"])
    @torch.no_grad()
    def test_offline_masks(self, name):
        encoder = reference_encoder(position_rule="absolute")
        config = encoder.config
        chunk, left = {
            "full": (-1, -1),
            "chunk": (config.chunk_size, config.left_chunks),
            "chunk_all_left": (config.chunk_size, -1),
            "chunk_left1": (config.chunk_size, 1),
        }[name]
        output = encoder(tensors()["offline.input"][:, 3:], chunk_size=chunk, left_chunks=left)
        torch.testing.assert_close(output.last_hidden_state, tensors()[f"offline.{name}"], atol=1e-4, rtol=0)

    def test_chunk_masks(self):
        for name, expected in tensors().items():
            if name.startswith("unit.chunk_mask."):
                size, chunk, left = (int(part) for part in name.split(".")[-1].split("_"))
                assert torch.equal(chunk_mask(size, chunk, left), expected), name


@pytest.mark.parametrize("rule", ["relative", "absolute", "released", "additive"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
class TestStreaming:
    @torch.no_grad()
    def test_equals_offline_at_every_length(self, rule, attention):
        encoder = tiny(rule, max_positions=60)
        encoder.config._attn_implementation = attention
        features = torch.randn(1, 16 * 30, 80) * 3
        for chunks in (1, 2, 4, 5, 9, 30):
            offline = encoder(features[:, : 16 * chunks]).last_hidden_state
            streamed, _ = stream(encoder, features[:, : 16 * chunks])
            torch.testing.assert_close(streamed, offline, atol=1e-5, rtol=0)

    @torch.no_grad()
    def test_rows_of_different_age_in_one_batch(self, rule, attention):
        encoder = tiny(rule)
        encoder.config._attn_implementation = attention
        features = torch.randn(3, 16 * 9, 80) * 3
        expected = [stream(encoder, features[i : i + 1])[0] for i in range(3)]
        caches = []
        for row, chunks in enumerate((1, 4, 7)):
            caches.append(stream(encoder, features[row : row + 1, : 16 * chunks])[1])
        joined = SpeechEncoderCache.cat(caches)
        step = torch.stack([features[row, 16 * c : 16 * (c + 2)] for row, c in enumerate((1, 4, 7))])
        output = encoder(step, cache=joined, use_cache=True)
        for row, chunks in enumerate((1, 4, 7)):
            torch.testing.assert_close(
                output.last_hidden_state[row], expected[row][0, 4 * chunks : 4 * (chunks + 2)], atol=1e-5, rtol=0
            )
        alone = encoder(features[1:2, 16 * 6 : 16 * 7], cache=output.cache.select([1]), use_cache=True)
        torch.testing.assert_close(alone.last_hidden_state[0], expected[1][0, 24:28], atol=1e-5, rtol=0)


@torch.no_grad()
def test_cache_can_be_saved_and_an_old_one_stays_valid():
    encoder = tiny()
    features = torch.randn(1, 16 * 6, 80)
    _, cache = stream(encoder, features[:, : 16 * 3])
    saved = {name: tensor.clone() for name, tensor in cache.state_dict().items()}
    first, _ = stream(encoder, features[:, 16 * 3 :], cache=cache)
    again, _ = stream(encoder, features[:, 16 * 3 :], cache=cache)
    loaded, _ = stream(encoder, features[:, 16 * 3 :], cache=encoder.init_cache().load_state_dict(saved))
    assert torch.equal(first, again) and torch.equal(first, loaded)


@torch.no_grad()
def test_whisper_subsampling_streams():
    encoder = tiny("additive", subsampling="conv1d", hidden_act="gelu", input_layer="none", chunk_size=8)
    assert encoder.config.chunk_frames == 16
    features = torch.randn(2, 16 * 9, 80)
    offline = encoder(features).last_hidden_state
    assert offline.shape[1] == 8 * 9
    torch.testing.assert_close(stream(encoder, features)[0], offline, atol=1e-5, rtol=0)


@torch.no_grad()
def test_whisper_weights_give_whispers_output(monkeypatch):
    """Against transformers' own encoder, without chunks."""
    torch.manual_seed(0)
    sizes = {"encoder_layers": 2, "encoder_attention_heads": 2, "d_model": 16, "encoder_ffn_dim": 32}
    config = WhisperConfig(num_mel_bins=80, max_source_positions=50, **sizes)
    whisper = WhisperEncoder(config).eval()
    for name, parameter in whisper.named_parameters():
        if "embed_positions" not in name:
            parameter.add_(torch.randn_like(parameter) * 0.2)
    encoder = FreezeOmniSpeechEncoder(whisper_encoder_config(config)).eval()
    found = encoder.load_state_dict(whisper_encoder_state_dict(whisper.state_dict()), strict=False)
    assert not found.unexpected_keys and set(found.missing_keys) == {"feature_mean", "feature_scale"}
    features = torch.randn(1, 100, 80)
    padded = F.gelu(whisper.conv2(F.gelu(whisper.conv1(features.transpose(1, 2))))).transpose(1, 2)
    # Ours pads in front alone: the same frames come one later, and only the first differs.
    causal = encoder.subsampling(F.pad(features, (0, 0, 4, 0)))
    torch.testing.assert_close(causal[:, 2:50], padded[:, 1:49], atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(encoder.subsampling, "forward", lambda _: padded)
    torch.testing.assert_close(
        encoder(features, chunk_size=-1).last_hidden_state,
        whisper(features.transpose(1, 2)).last_hidden_state,
        atol=1e-5,
        rtol=1e-5,
    )


@torch.no_grad()
def test_unlimited_left_context_streams():
    encoder = tiny(left_chunks=-1)
    features = torch.randn(1, 16 * 12, 80)
    torch.testing.assert_close(stream(encoder, features)[0], encoder(features).last_hidden_state, atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_padded_batch_equals_rows_alone(attention):
    encoder = tiny()
    encoder.config._attn_implementation = attention
    lengths = [16 * 9, 16 * 3, 50]
    features = torch.randn(3, 16 * 9, 80) * 3
    mask = torch.arange(features.shape[1]) < torch.tensor(lengths)[:, None]
    output = encoder(features, mask)
    assert output.attention_mask.sum(1).tolist() == [36, 12, 12]
    for row, length in enumerate(lengths):
        alone = encoder(features[row : row + 1, :length]).last_hidden_state[0]
        torch.testing.assert_close(output.last_hidden_state[row, : len(alone)], alone, atol=1e-5, rtol=0)
        assert not output.last_hidden_state[row, len(alone) :].any()


@torch.no_grad()
def test_new_inputs_do_not_change_previous_outputs():
    encoder = tiny()
    features = torch.randn(1, 16 * 8, 80)
    before = encoder(features).last_hidden_state
    features[:, 16 * 5 :] += 10
    after = encoder(features).last_hidden_state
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


@torch.no_grad()
def test_left_context_is_limited():
    encoder = tiny(num_hidden_layers=1)
    features = torch.randn(1, 16 * 8, 80)
    before = encoder(features).last_hidden_state
    features[:, :16] += 10
    after = encoder(features).last_hidden_state
    # Chunk 4 sees chunks 1 to 3; the subsampling reaches three frames further back.
    assert torch.equal(before[:, 4 * 5 :], after[:, 4 * 5 :])
    assert not torch.equal(before[:, 12:16], after[:, 12:16])


def test_dynamic_chunks_only_in_training_and_within_bounds():
    encoder = tiny(dynamic_chunks=True)
    features = torch.randn(1, 16 * 8, 80)
    with torch.no_grad():
        assert torch.equal(encoder(features).last_hidden_state, encoder(features).last_hidden_state)
    torch.manual_seed(0)
    drawn = {draw_dynamic_chunks(64) for _ in range(300)}
    assert (-1, -1) in drawn
    assert {size for size, _ in drawn if size > 0} <= set(range(1, 26)) and len(drawn) > 20
    assert all(draw_dynamic_chunks(length) for length in (1, 2, 3))


def test_gradient_checkpointing_gives_the_same_gradients():
    encoder = tiny(hidden_dropout=0.0, activation_dropout=0.0).train()
    features = torch.randn(2, 16 * 4, 80)

    def gradients():
        encoder.zero_grad()
        encoder(features).last_hidden_state.square().sum().backward()
        return [parameter.grad.clone() for parameter in encoder.parameters()]

    plain = gradients()
    encoder.activation_checkpointing_enable()
    for expected, found in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_bfloat16_stays_close():
    encoder = tiny()
    features = torch.randn(1, 64, 80)
    expected = encoder(features).last_hidden_state
    found = encoder.to(torch.bfloat16)(features).last_hidden_state
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


@torch.no_grad()
def test_round_trip_restores_every_buffer(tmp_path):
    encoder = tiny()
    encoder.feature_mean += 3.0
    encoder.save_pretrained(tmp_path)
    again = FreezeOmniSpeechEncoder.from_pretrained(tmp_path)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    features = torch.randn(1, 64, 80)
    assert torch.equal(encoder(features).last_hidden_state, again.eval()(features).last_hidden_state)
    assert isinstance(encoder(features, return_dict=False), tuple)
    assert len(encoder(features, output_hidden_states=True).hidden_states) == 3


def test_ctc_loss_of_a_batch_is_the_mean_of_its_rows():
    torch.manual_seed(0)
    config = tiny(ctc_vocab_size=11, hidden_dropout=0.0).config
    model = FreezeOmniSpeechEncoderForCTC(config).eval()
    features = torch.randn(2, 16 * 6, 80)
    mask = torch.ones(2, 96)
    mask[1, 64:] = 0
    labels = torch.tensor([[1, 2, 3, 4], [5, 6, -100, -100]])
    both = model(features, mask, labels=labels).loss
    first = model(features[:1], labels=labels[:1]).loss
    second = model(features[1:, :64], labels=labels[1:, :2]).loss
    torch.testing.assert_close(both, (first + second) / 2)
    both.backward()
    assert model.speech_encoder.subsampling.conv1.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="ctc_vocab_size"):
        FreezeOmniSpeechEncoderForCTC(tiny().config)


def test_sinusoids_of_negative_positions_mirror():
    table = sinusoids(torch.tensor([-3, 3]), 8)
    torch.testing.assert_close(table[0, ::2], -table[1, ::2])
    torch.testing.assert_close(table[0, 1::2], table[1, 1::2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"input_features": torch.zeros(1, 16, 40)}, r"\(1, 16, 40\)"),
        ({"input_features": torch.zeros(1, 2, 80)}, "too few"),
        ({"input_features": torch.zeros(1, 24, 80), "use_cache": True}, "no whole chunks of 16"),
        ({"input_features": torch.zeros(1, 16, 80), "use_cache": True, "attention_mask": torch.zeros(1, 16)}, "mask"),
    ],
)
def test_wrong_input_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        tiny()(**arguments)


def test_cache_of_other_batch_size_is_refused():
    encoder = tiny()
    with pytest.raises(ValueError, match="2 rows"):
        encoder(torch.zeros(2, 16, 80), cache=encoder.init_cache(3))
