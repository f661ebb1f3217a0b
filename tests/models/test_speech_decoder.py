# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Speech decoder: reference numbers, teacher forcing equals stepping, rows do not see each other."""

import pytest
import torch
from golden_data import CHECKPOINTS, facts, tensors

from freeze_omni_hf.configuration import FreezeOmniSpeechDecoderConfig
from freeze_omni_hf.conversion import released
from freeze_omni_hf.generation import FreezeOmniGenerationConfig
from freeze_omni_hf.generation.sampling import choose_speech_tokens
from freeze_omni_hf.models import FreezeOmniSpeechDecoder, SpeechDecoderCache


def reference_decoder(llm_width: int, attention: str = "sdpa") -> FreezeOmniSpeechDecoder:
    settings = released.load_json(CHECKPOINTS / "decoder/model.json")
    config = released.decoder_config(settings, llm_width)
    config._attn_implementation = attention
    decoder = FreezeOmniSpeechDecoder(config).eval()
    weights = released.load_pickle(CHECKPOINTS / "decoder/final.pt")
    weights = weights.get("model", weights)
    prefix = "speech_decoder."
    decoder.load_state_dict(
        {released.decoder_name(n)[len(prefix) :]: v.float() for n, v in weights.items() if released.decoder_name(n)}
    )
    return decoder


def llm_width() -> int:
    return tensors()["llm.speak.hidden"].shape[-1]


def segment_inputs(index: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    golden = tensors()
    return (
        golden[f"tts.{index}.text_token_embeds"].reshape(1, -1, width),
        golden[f"tts.{index}.llm_hidden_prefix"].reshape(1, -1, width),
    )


def tiny(**kwargs) -> FreezeOmniSpeechDecoder:
    torch.manual_seed(0)
    sizes = {
        "llm_hidden_size": 32,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "num_pre_layers": 1,
        "codebook_size": 32,
    }
    decoder = FreezeOmniSpeechDecoder(FreezeOmniSpeechDecoderConfig(**{**sizes, **kwargs})).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return decoder


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("segment", [0, 1])
@torch.no_grad()
def test_reference_steps(segment, attention):
    decoder, golden = reference_decoder(llm_width(), attention), tensors()
    text, hidden = segment_inputs(segment, llm_width())
    torch.testing.assert_close(
        decoder.pre_network(decoder.text_rows(text)), golden[f"tts.{segment}.pre_nn_out"], atol=1e-4, rtol=0
    )
    cache = decoder.prefill(text, None, hidden)
    for layer in range(decoder.config.num_hidden_layers):
        expected = golden[f"tts.{segment}.prefix_cache.{layer}.k"]
        found = cache.keys[layer][:, :, : expected.shape[2]]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    token, chosen = torch.tensor([decoder.config.bos_speech_token_id]), []
    for logits in golden[f"tts.{segment}.logits"]:
        output = decoder.step(token, cache)
        cache = output.cache
        torch.testing.assert_close(output.logits[0, 0], logits, atol=1e-4, rtol=0)
        token = output.logits[:, 0].argmax(-1)
        chosen.append(int(token))
    assert chosen == [*golden[f"tts.{segment}.tokens"].tolist(), decoder.config.eos_speech_token_id]


@torch.no_grad()
def test_reference_teacher_forcing_equals_steps():
    decoder, golden = reference_decoder(llm_width()), tensors()
    text, hidden = segment_inputs(0, llm_width())
    output = decoder(text, None, hidden, labels=golden["tts.0.tokens"][None])
    torch.testing.assert_close(output.logits[0], golden["tts.0.logits"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_reference_loss():
    """The reference places the speech of every row behind the longest text of the batch."""
    golden = {name.split(".")[-1]: value for name, value in tensors().items() if name.startswith("unit.decoder_loss.")}
    decoder = reference_decoder(golden["x"].shape[-1])
    steps = torch.arange(golden["y"].shape[1])
    labels = golden["y"].masked_fill(steps >= golden["y_lens"][:, None], -100)
    text_mask = torch.arange(golden["x"].shape[1]) < golden["x_lens"][:, None]
    prefix_mask = torch.arange(golden["x_prefix"].shape[1]) < golden["x_prefix_lens"][:, None]
    output = decoder(
        golden["x"],
        text_mask,
        golden["x_prefix"],
        prefix_mask,
        labels=labels,
        speech_positions=(golden["x_lens"].max() + 1).expand(len(labels)),
    )
    for row, length in enumerate(golden["y_lens"].tolist()):
        torch.testing.assert_close(
            output.logits[row, : length + 1], golden["logits"][row, : length + 1], atol=1e-4, rtol=0
        )
    count = (golden["y_lens"] + 1).sum()
    torch.testing.assert_close(output.loss * count, golden["loss"], atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in tensors() if name.startswith("unit.penalty.")])
@torch.no_grad()
def test_reference_penalty(name):
    window, penalty = name.split(".", 2)[2].removesuffix(".tokens").removeprefix("w").split("_p")
    settings = FreezeOmniGenerationConfig(
        speech_penalty_window=int(window), speech_penalty=float(penalty), speech_penalty_rule="released"
    )
    decoder = reference_decoder(llm_width())
    text, hidden = segment_inputs(0, llm_width())
    cache = decoder.prefill(text, None, hidden)
    history = torch.tensor([[decoder.config.bos_speech_token_id]])
    for _ in range(150):
        output = decoder.step(history[:, -1], cache)
        cache = output.cache
        token = choose_speech_tokens(output.logits[:, -1], history, settings, decoder.config.codebook_size, False)
        if int(token) == decoder.config.eos_speech_token_id:
            break
        history = torch.cat((history, token[:, None]), dim=1)
    assert history[0, 1:].tolist() == tensors()[name].tolist()
    assert len(facts()["segments"]) > 0


@pytest.mark.parametrize(
    "decoder", [tiny(), tiny(hidden_size=24), tiny(project_inputs=True)], ids=["view", "width", "proj"]
)
def test_teacher_forced_batch_equals_rows_alone_and_steps(decoder):
    torch.manual_seed(3)
    text, prefix = torch.randn(3, 5, 32), torch.randn(3, 7, 32)
    text_lengths, prefix_lengths, counts = (5, 2, 3), (4, 7, 1), (6, 9, 2)
    labels = torch.randint(0, 32, (3, 9))
    for row, count in enumerate(counts):
        labels[row, count:] = -100
    text_mask = torch.arange(5) < torch.tensor(text_lengths)[:, None]
    prefix_mask = torch.arange(7) < torch.tensor(prefix_lengths)[:, None]
    batch = decoder(text, text_mask, prefix, prefix_mask, labels=labels)
    total = 0.0
    for row, (t, p, n) in enumerate(zip(text_lengths, prefix_lengths, counts, strict=True)):
        pieces = text[row : row + 1, :t], prefix[row : row + 1, :p]
        alone = decoder(pieces[0], None, pieces[1], labels=labels[row : row + 1, :n])
        torch.testing.assert_close(batch.logits[row, : n + 1], alone.logits[0], atol=1e-4, rtol=1e-4)
        total += alone.loss * (n + 1)
        cache = decoder.prefill(pieces[0], None, pieces[1])
        tokens = [decoder.config.bos_speech_token_id, *labels[row, :n].tolist()]
        for index, token in enumerate(tokens):
            output = decoder.step(torch.tensor([token]), cache)
            cache = output.cache
            torch.testing.assert_close(output.logits[0, 0], alone.logits[0, index], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(batch.loss, total / sum(n + 1 for n in counts), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_caches_of_different_length_join_grow_and_split():
    decoder = tiny()
    torch.manual_seed(1)
    texts = [torch.randn(1, n, 32) for n in (2, 5)]
    prefixes = [torch.randn(1, n, 32) for n in (6, 3)]

    def run(cache, tokens, steps=140):
        logits = []
        for _ in range(steps):  # beyond the room that is reserved at first
            output = decoder.step(tokens, cache)
            cache, tokens = output.cache, output.logits[:, 0, :32].argmax(-1)
            logits.append(output.logits[:, 0])
        return torch.stack(logits, 1), cache, tokens

    start = torch.tensor([decoder.config.bos_speech_token_id])
    alone = [run(decoder.prefill(t, None, p), start)[0] for t, p in zip(texts, prefixes, strict=True)]
    joined = SpeechDecoderCache.cat([decoder.prefill(t, None, p) for t, p in zip(texts, prefixes, strict=True)])
    both, cache, tokens = run(joined, start.expand(2))
    torch.testing.assert_close(both[0], alone[0][0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both[1], alone[1][0], atol=1e-4, rtol=1e-4)
    second = decoder.step(tokens[1:], cache.select([1])).logits
    torch.testing.assert_close(second[0], decoder.step(tokens, cache).logits[1], atol=1e-4, rtol=1e-4)


def test_gradients_reach_every_part_and_only_through_what_is_read():
    decoder = tiny()
    text, prefix = torch.randn(2, 3, 32), torch.randn(2, 4, 32)
    labels = torch.randint(0, 32, (2, 5))
    decoder(text, None, prefix, labels=labels).loss.backward()
    without = {
        name for name, parameter in decoder.named_parameters() if parameter.grad is None or not parameter.grad.any()
    }
    last = decoder.config.num_hidden_layers - 1
    # Of the last prefix layer only keys and values are read.
    allowed = {
        n for n in without if n.startswith(f"prefix_layers.{last}.") and "k_proj" not in n and "v_proj" not in n
    }
    assert without == allowed
    assert decoder.embedding.weight.grad[decoder.config.pad_speech_token_id].abs().sum() == 0


def test_gradient_checkpointing_keeps_the_loss():
    decoder = tiny().train()
    text, prefix, labels = torch.randn(2, 3, 32), torch.randn(2, 4, 32), torch.randint(0, 32, (2, 5))
    plain = decoder(text, None, prefix, labels=labels).loss
    plain.backward()
    expected = {name: p.grad.clone() for name, p in decoder.named_parameters() if p.grad is not None}
    decoder.zero_grad()
    decoder.activation_checkpointing_enable()
    decoder(text, None, prefix, labels=labels).loss.backward()
    for name, parameter in decoder.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], msg=name)


@torch.no_grad()
def test_prefix_can_be_left_out():
    decoder = tiny(use_prefix=False, num_pre_layers=0)
    text, labels = torch.randn(1, 3, 32), torch.randint(0, 32, (1, 5))
    with_hidden = decoder(text, None, torch.randn(1, 4, 32), labels=labels).logits
    assert torch.equal(with_hidden, decoder(text, labels=labels).logits)


@torch.no_grad()
def test_round_trip_and_tuple(tmp_path):
    decoder = tiny(hidden_size=24)
    decoder.save_pretrained(tmp_path)
    again = FreezeOmniSpeechDecoder.from_pretrained(tmp_path).eval()
    text, labels = torch.randn(1, 3, 32), torch.randint(0, 32, (1, 5))
    assert torch.equal(decoder(text, labels=labels).logits, again(text, labels=labels).logits)
    assert isinstance(decoder(text, labels=labels, return_dict=False), tuple)


def test_wrong_width_is_named():
    with pytest.raises(ValueError, match="width 32, not 7"):
        tiny()(torch.zeros(1, 2, 7), labels=torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="labels"):
        tiny()(torch.zeros(1, 2, 32))
