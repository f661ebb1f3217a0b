# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Adapters of all released kinds, and the state head."""

import pytest
import torch
from golden_data import CHECKPOINTS, facts, prefixed, tensors

from freeze_omni_hf.configuration import FreezeOmniAdapterConfig
from freeze_omni_hf.conversion import released
from freeze_omni_hf.models import AdapterCache, FreezeOmniAdapter, StateHead
from freeze_omni_hf.models.adapter import ANSWER, IGNORE, LISTEN
from freeze_omni_hf.models.letters import spelling_vectors


UNITS = {
    "cnn": {"adapter_type": "cnn"},
    "linear": {"adapter_type": "linear"},
    "sub2": {"num_convs": 2},
    "sub1_layer_gelu": {"norm": "layer", "hidden_act": "gelu"},
    "sub1_batch_relu": {"norm": "batch", "hidden_act": "relu"},
}


def unit_adapter(name: str) -> tuple[FreezeOmniAdapter, dict]:
    unit = prefixed(f"unit.adapter.{name}.")
    weights = {key[len("state.") :]: value for key, value in unit.items() if key.startswith("state.")}
    kernel = weights.get("conv1d2.weight", torch.zeros(1, 1, 3)).shape[-1]
    config = FreezeOmniAdapterConfig(
        input_size=unit["x"].shape[-1], output_size=unit["out"].shape[-1], kernel_size=kernel, **UNITS[name]
    )
    adapter = FreezeOmniAdapter(config).eval()
    prefix = "adapter."
    adapter.load_state_dict(
        {released.audio_name(f"adpter.{key}", config)[len(prefix) :]: value for key, value in weights.items()}
    )
    return adapter, unit


@pytest.mark.parametrize("name", UNITS)
@torch.no_grad()
def test_reference_batch(name):
    adapter, unit = unit_adapter(name)
    mask = unit["mask"][:, 0]
    output = adapter(unit["x"].masked_fill(~mask.unsqueeze(-1), 7.0), mask)
    assert torch.equal(output.attention_mask, unit["out_mask"][:, 0])
    valid = output.attention_mask
    torch.testing.assert_close(output.last_hidden_state[valid], unit["out"][valid], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in UNITS if name.startswith("sub")])
@torch.no_grad()
def test_reference_stream(name):
    adapter, unit = unit_adapter(name)
    cache, outputs = None, []
    for piece in unit["x"][:1, :10].split([4, 4, 2], dim=1):
        output = adapter(piece, cache=cache, use_cache=True)
        outputs.append(output.last_hidden_state)
        cache = output.cache
    torch.testing.assert_close(torch.cat(outputs, 1), unit["stream_4_4_2"], atol=1e-4, rtol=0)
    released_order = [unit[f"stream_cache.{index}"] for index in range(len(adapter.convs))]
    for found, expected in zip(reversed(cache.inputs), released_order, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_reference_model():
    settings = released.load_train_settings(CHECKPOINTS / "audiollm/train.yaml")
    golden = tensors()
    width = golden["adapter.out_chunks"].shape[-1]
    config = released.adapter_config(settings["model_conf"], golden["encoder.out_chunks"].shape[-1], width)
    adapter = FreezeOmniAdapter(config).eval()
    weights = released.load_pickle(CHECKPOINTS / "audiollm/final.pt")
    adapter.load_state_dict(
        {
            released.audio_name(name, config)[len("adapter.") :]: value.float() if value.is_floating_point() else value
            for name, value in weights.items()
            if name.startswith("adpter.")
        },
        strict=False,
    )
    cache = None
    for chunk, expected in zip(golden["encoder.out_chunks"], golden["adapter.out_chunks"], strict=True):
        output = adapter(chunk[None], cache=cache, use_cache=True)
        cache = output.cache
        torch.testing.assert_close(output.last_hidden_state[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", UNITS)
@torch.no_grad()
def test_stream_and_batch_equal_offline_rows(name):
    adapter, unit = unit_adapter(name)
    torch.manual_seed(0)
    features = torch.randn(2, 24, unit["x"].shape[-1])
    offline = adapter(features).last_hidden_state
    for size in (2, 4, 8):
        cache, outputs = None, []
        for piece in features.split(size, dim=1):
            output = adapter(piece, cache=cache, use_cache=True)
            outputs.append(output.last_hidden_state)
            cache = output.cache
        torch.testing.assert_close(torch.cat(outputs, 1), offline, atol=1e-5, rtol=0)
    swapped = AdapterCache.cat([cache.select([1]), cache.select([0])])
    more = torch.randn(2, 4, features.shape[-1])
    torch.testing.assert_close(
        adapter(more.flip(0), cache=swapped).last_hidden_state.flip(0),
        adapter(more, cache=cache).last_hidden_state,
        atol=1e-5,
        rtol=0,
    )
    mask = torch.ones(2, 24)
    mask[1, 13:] = 0
    padded = adapter(features, mask)
    alone = adapter(features[1:, :13]).last_hidden_state[0]
    torch.testing.assert_close(padded.last_hidden_state[1, : len(alone)], alone, atol=1e-5, rtol=0)
    assert int(padded.attention_mask[1].sum()) == len(alone) == int(adapter.output_lengths(torch.tensor(13)))


@torch.no_grad()
def test_stacked_frames_stream_and_pad():
    torch.manual_seed(0)
    config = FreezeOmniAdapterConfig(input_size=6, output_size=10, kernel_size=3, stack_frames=2)
    adapter = FreezeOmniAdapter(config).eval()
    assert config.stride == 4 and adapter.proj.in_features == 24
    features = torch.randn(2, 24, 6)
    mask = torch.ones(2, 24)
    mask[1, 15:] = 0
    offline = adapter(features, mask)
    alone = adapter(features[1:, :15]).last_hidden_state[0]
    assert len(alone) == 4 == int(offline.attention_mask[1].sum()) == int(adapter.output_lengths(torch.tensor(15)))
    torch.testing.assert_close(offline.last_hidden_state[1, :4], alone, atol=1e-5, rtol=0)
    cache, outputs = None, []
    for piece in features[:1].split(8, dim=1):
        output = adapter(piece, cache=cache, use_cache=True)
        outputs.append(output.last_hidden_state)
        cache = output.cache
    torch.testing.assert_close(torch.cat(outputs, 1)[0], offline.last_hidden_state[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_blocks_and_gate_stream_and_pad():
    """Residual blocks and the gate: chunk by chunk, as rows of a batch, and causal."""
    torch.manual_seed(0)
    config = FreezeOmniAdapterConfig(
        input_size=6, output_size=10, kernel_size=3, conv_size=8, num_blocks=2, block_kernel_size=4, gate=True
    )
    adapter = FreezeOmniAdapter(config).eval()
    for parameter in adapter.parameters():
        parameter.mul_(5)
    features = torch.randn(2, 24, 6)
    mask = torch.ones(2, 24)
    mask[1, 14:] = 0
    offline = adapter(features, mask)
    alone = adapter(features[1:, :14])
    assert offline.gate_logits.shape == (2, 12)
    torch.testing.assert_close(offline.last_hidden_state[1, :7], alone.last_hidden_state[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(offline.gate_logits[1, :7], alone.gate_logits[0], atol=1e-4, rtol=0)
    cache, vectors, gates = None, [], []
    for piece in features[:1].split(4, dim=1):
        output = adapter(piece, cache=cache, use_cache=True)
        cache = AdapterCache.cat([output.cache]).select([0])
        vectors.append(output.last_hidden_state)
        gates.append(output.gate_logits)
    torch.testing.assert_close(torch.cat(vectors, 1)[0], offline.last_hidden_state[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cat(gates, 1)[0], offline.gate_logits[0], atol=1e-4, rtol=0)
    changed = features.clone()
    changed[:, 13:] += 1
    torch.testing.assert_close(adapter(changed).gate_logits[:, :7], adapter(features).gate_logits[:, :7])


def test_mixtures_are_of_the_named_tokens_alone():
    torch.manual_seed(0)
    adapter = FreezeOmniAdapter(FreezeOmniAdapterConfig(input_size=6, output_size=10, token_mixture=True))
    table, vectors = torch.randn(30, 10), torch.randn(2, 4, 10, requires_grad=True)
    with pytest.raises(ValueError, match="set_tokens"):
        adapter.mix_tokens(vectors, table)
    ids = torch.tensor([3, 7, 21])
    adapter.set_tokens(ids)
    assert adapter.config.num_tokens == 3
    mixed = adapter.mix_tokens(vectors, table)
    cosine = torch.nn.functional.cosine_similarity(vectors.unsqueeze(2), table[ids], dim=-1)
    torch.testing.assert_close(mixed, (20 * cosine).softmax(dim=-1) @ table[ids])
    mixed.sum().backward()
    assert vectors.grad.abs().sum() > 0 and adapter.log_scale.grad is not None
    heard = adapter.hear_tokens(vectors, table)[1]
    assert torch.equal(heard, ids[cosine.argmax(dim=-1)])
    # Near a token's direction, whatever the length, the mixture is that token's embedding.
    adapter.log_scale.data.fill_(6.0)
    torch.testing.assert_close(adapter.mix_tokens(9 * table[None, ids], table)[0], table[ids], atol=1e-3, rtol=0)
    # Another LLM or other tokens are noticed.
    torch.testing.assert_close(adapter.mix_tokens(table[None, ids], 2 * table)[0], 2 * table[ids], atol=1e-2, rtol=0)
    adapter.set_tokens(torch.tensor([5]))
    torch.testing.assert_close(adapter.mix_tokens(vectors, table), table[5].expand(2, 4, -1))


def test_vectors_that_do_not_matter_cost_nothing_and_change_nothing():
    torch.manual_seed(0)
    adapter = FreezeOmniAdapter(
        FreezeOmniAdapterConfig(input_size=6, output_size=10, token_mixture=True, spelling_size=16)
    )
    adapter.set_tokens(torch.tensor([3, 7, 21]), ["a", "b", "ab"])
    table, vectors, spelling = torch.randn(30, 10), torch.randn(2, 4, 10, requires_grad=True), torch.randn(2, 4, 16)
    where = torch.tensor([[True, False, True, False], [False, False, False, True]])
    mixed, heard = adapter.hear_tokens(vectors, table, spelling, where)
    whole, tokens = adapter.hear_tokens(vectors, table, spelling)
    torch.testing.assert_close(mixed, whole * where.unsqueeze(-1))
    assert torch.equal(heard, tokens * where)
    mixed.sum().backward()
    assert (vectors.grad.abs().sum(dim=-1) > 0).tolist() == where.tolist()
    ids, log_probs = adapter.likely_tokens(vectors, table, spelling, 2, where)
    assert ids.shape == (2, 4, 2) and torch.equal(ids[..., 0], heard)
    assert (log_probs[where] < 0).all() and not log_probs[~where].any()
    assert not adapter.hear_tokens(vectors, table, spelling, torch.zeros_like(where))[0].any()


def test_spellings_are_alike_where_letters_are():
    texts = [" Belgium", " Belgian", " India", "belgium", " BELGIUM!", "?"]
    vectors = spelling_vectors(texts, 128)
    assert vectors.dtype == torch.int8 and torch.equal(vectors, spelling_vectors(texts, 128))
    unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
    likeness = unit @ unit.T
    assert likeness[0, 1] > 0.5 > likeness[0, 2] and likeness[0, 3] > likeness[0, 1]
    assert torch.equal(vectors[0], vectors[4]) and not vectors[5].any()


def test_tokens_are_told_apart_by_spelling_too(tmp_path):
    """At first as if there were no spelling; then letters decide between tokens that vectors do not tell apart."""
    config = FreezeOmniAdapterConfig(input_size=6, output_size=10, token_mixture=True, spelling_size=64, gate=True)
    adapter = FreezeOmniAdapter(config).eval()
    ids, texts = torch.tensor([4, 2, 9]), [" cat", " dog", " cats"]
    with pytest.raises(ValueError, match="3 tokens need as many texts"):
        adapter.set_tokens(ids)
    adapter.set_tokens(ids, texts)
    table, frames = torch.randn(12, 10), torch.randn(1, 8, 6)
    output = adapter(frames)
    assert not output.spelling.any()
    plain = adapter.mix_tokens(output.last_hidden_state, table)
    torch.testing.assert_close(adapter.mix_tokens(output.last_hidden_state, table, output.spelling), plain)
    letters = 400 * torch.nn.functional.normalize(spelling_vectors(texts, 64).float(), dim=-1)[None]
    mixed = adapter.mix_tokens(output.last_hidden_state[:, :3], table, letters)
    torch.testing.assert_close(mixed[0], table[ids], atol=0.05, rtol=0)
    adapter.spelling_proj.weight.data.normal_()
    adapter.save_pretrained(tmp_path)
    loaded = FreezeOmniAdapter.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(frames).spelling, adapter(frames).spelling)
    assert torch.equal(loaded.spellings, adapter.spellings)
    with pytest.raises(ValueError, match="token_mixture"):
        FreezeOmniAdapterConfig(spelling_size=8)


def test_tokens_of_the_mixture_are_saved(tmp_path):
    adapter = FreezeOmniAdapter(FreezeOmniAdapterConfig(input_size=6, output_size=10, token_mixture=True))
    adapter.set_tokens(torch.tensor([4, 2, 9]))
    adapter.log_scale.data.fill_(2.5)
    adapter.save_pretrained(tmp_path)
    loaded = FreezeOmniAdapter.from_pretrained(tmp_path)
    assert loaded.token_ids.tolist() == [4, 2, 9] and loaded.log_scale.item() == 2.5


def test_blocks_need_the_strided_kind():
    with pytest.raises(ValueError, match="num_blocks"):
        FreezeOmniAdapterConfig(adapter_type="linear", num_blocks=1)


def test_wrong_width_is_named():
    adapter, _ = unit_adapter("linear")
    with pytest.raises(ValueError, match="takes width"):
        adapter(torch.zeros(1, 3, 5))


def test_reference_state_probabilities_and_decisions():
    golden = tensors()
    names = sorted(name for name in golden if name.startswith("llm.listen.") and name.endswith("state_logits"))
    logits = torch.stack([golden[name][0, -1] for name in names])
    torch.testing.assert_close(StateHead.probabilities(logits), golden["state.prob_last"], atol=1e-5, rtol=0)
    words = {LISTEN: "cl", ANSWER: "ss", IGNORE: "el"}
    assert [words[int(state)] for state in StateHead.predict(logits)] == facts()["state.predicted"]


def test_state_threshold():
    logits = torch.log(torch.tensor([0.3, 0.6, 0.1, 9.0]))
    assert int(StateHead.predict(logits)) == ANSWER
    assert int(StateHead.predict(logits, threshold=0.7)) == LISTEN
