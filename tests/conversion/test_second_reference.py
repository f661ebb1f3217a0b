# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The package against a second reference: plain functions that read the released files themselves.

First that reference must give the recorded numbers. Then random checkpoints with other sizes and options are
converted, and the package must answer as the reference does on the unconverted files.
"""

import re
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from golden_data import CHECKPOINTS, LLM, facts, prefixed, tensors
from reference import released_inference as released
from reference.make_checkpoint import make
from transformers import pipeline

from freeze_omni_hf import FreezeOmniForConditionalGeneration, FreezeOmniProcessor
from freeze_omni_hf.conversion import convert


# Options that differ from those of ``make_checkpoint.OPTIONS``, which are the ones of "other_sizes".
VARIANTS = {
    # chunk 8, left 2, concat-after, Kaldi statistics, two adapter convolutions, tied LLM, ResBlock2, penalty
    "other_sizes": {"seed": 33},
    # norm after the blocks, no input layer, no prompts, statistics in the JSON file only, no voice stage, nested
    "norm_after": {
        "seed": 46,
        "llm": {"hidden": 64, "kv_heads": 2, "tied": False},
        "width": 32,
        "encoder_heads": 4,
        "encoder_layers": 2,
        "chunk": 4,
        "left": 1,
        "transformer": {"transformer-normalize-before": False, "transformer-input-layer": "none"},
        "json_cmvn": True,
        "cmvn_in_weights": False,
        "prompts": {"prompt_finetune": False, "add_prompt_before": False},
        "states": 4,
        "llm_aliases": False,
        "decoder_width": 64,
        "decoder_layers": 2,
        "nested": True,
        "resblock": "1",
        "channels": 64,
        "block_kernels": [3, 5, 7],
        "dilations": [[1, 3, 5]] * 3,
        "voices": 8,
        "voice_conv": [3, 1],
        "rates": [8, 5, 5, 3],
        "kernels": [16, 11, 11, 5],
        "server": {
            "decoder_penalty_window_size": -1,
            "decoder_chunk_size": 40,
            "decoder_chunk_overlap_size": 10,
        },
    },
    # chunks shorter than the adapter's context, keys with underscores, named parts, unused prompts, bfloat16
    "short_chunks": {
        "seed": 49,
        "llm": {"hidden": 96, "layers": 3, "heads": 6, "kv_heads": 2, "tied": False},
        "width": 40,
        "encoder_heads": 5,
        "encoder_layers": 1,
        "chunk": 2,
        "left": 3,
        "transformer": {"transformer-concat-after": False},
        "underscores": True,
        "layer_config": "subsampling_a-transformer_b",
        "adapter": {"kernel_size": 7, "norm": "layer", "activation_func": "gelu"},
        "cmvn_in_weights": False,
        "dtype": torch.bfloat16,
        "llm_aliases": False,
        "prompts": {"prompt_finetune": True, "add_prompt_before": False},
        "decoder_width": 48,
        "decoder_layers": 3,
        "decoder_heads": 6,
        "server": {
            "decoder_penalty_window_size": 1,
            "decoder_penalty": 1.5,
            "decoder_chunk_size": 10,
            "decoder_chunk_overlap_size": 3,
        },
    },
    # two adapter convolutions that ignore norm and activation, concat and norm after, a window of all tokens
    "ignored_settings": {
        "seed": 12,
        "llm": {"layers": 1, "heads": 2, "kv_heads": 2},
        "width": 20,
        "encoder_heads": 2,
        "encoder_layers": 2,
        "chunk": 6,
        "left": 5,
        "transformer": {"transformer-normalize-before": False},
        "adapter": {"kernel_size": 5, "norm": "layer", "activation_func": "gelu"},
        "json_cmvn": True,
        "decoder_width": 64,
        "decoder_layers": 1,
        "decoder_heads": 2,
        "rates": [10, 5, 4, 3],
        "kernels": [20, 5, 6, 3],
        "block_kernels": [3],
        "dilations": [[2, 3]],
        "server": {"decoder_penalty_window_size": 1000, "decoder_penalty": 1.05},
    },
}


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def question(seconds: float, seed: int = 0) -> torch.Tensor:
    """Three wobbling tones and some noise at 16 kHz."""
    noise = torch.randn(int(seconds * 16000), generator=torch.Generator().manual_seed(seed))
    time, turn = torch.arange(len(noise)) / 16000, 2 * torch.pi
    tones = [torch.sin(turn * (f * time + 3 * torch.sin(turn * r * time))) for f, r in ((180, 1.3), (700, 2.1))]
    return 0.3 * sum(tones) * (0.6 + 0.4 * torch.sin(turn * 3.1 * time)) + 0.01 * noise


@pytest.fixture(scope="module")
def m() -> SimpleNamespace:
    """The recorded checkpoint, with the settings of the recording."""
    m, run = released.load(CHECKPOINTS, LLM), facts()["tts.run"]
    m.server.update(
        decoder_chunk_size=run["codec_chunk_size"],
        decoder_chunk_overlap_size=run["codec_padding_size"],
        decoder_penalty_window_size=run["penalty_window_size"],
        decoder_penalty=run["penalty"],
    )
    return m


@pytest.fixture(scope="module")
def reply(m) -> SimpleNamespace:
    return released.reply(m, tensors()["input.wav_16k"])


class TestTheReferenceItself:
    """On the recorded checkpoint the plain functions give the recorded numbers."""

    @torch.no_grad()
    def test_hearing(self, m, reply):
        golden, known, steps = tensors(), facts(), reply.steps
        close(reply.chunks, golden["frontend.fbank_chunks"])
        close(released.cmvn(m, reply.chunks), golden["encoder.cmvn_out"])
        close(released.subsample(m, released.cmvn(m, reply.chunks)), golden["encoder.subsample_out"])
        close(torch.cat([step.encoded for step in steps]), golden["encoder.out_chunks"])
        close(torch.cat([step.adapted for step in steps]), golden["adapter.out_chunks"])
        for layer, (keys, values) in enumerate(steps[-1].encoder_cache):
            close(keys, golden[f"encoder.cache.{layer}.k"])
            close(values, golden[f"encoder.cache.{layer}.v"])
        for index, frames in enumerate(steps[-1].adapter_cache):
            close(frames, golden[f"adapter.cache.{index}"])
        for index, step in enumerate(steps):
            expected = prefixed(f"llm.listen.{index:02d}.")
            close(step.vectors, expected["inputs_embeds"])
            close(step.hidden, expected["hidden"])
            close(step.logits, expected["state_logits"])
        close(torch.stack([step.chances for step in steps]), golden["state.prob_last"])
        assert [step.state for step in steps] == known["state.predicted"]
        assert [step.pe_index for step in steps] == known["encoder.pe_index_after_chunk"]

    def test_statistics(self):
        with open(CHECKPOINTS / "audiollm/global_cmvn", "rb") as file:
            is_json = file.read(1) == b"{"
        mean, istd = released.read_cmvn(CHECKPOINTS / "audiollm/global_cmvn", is_json)
        close(mean, tensors()["cmvn.mean"])
        close(istd, tensors()["cmvn.istd"])

    def test_speaking(self, reply):
        golden, known = tensors(), facts()
        assert reply.text.text == known["text.whole"]
        assert reply.text.ids == [token for token in known["text.ids_incl_eod"] if token != known["eod_id"]]
        close(reply.text.logits, golden["llm.speak.logits"])
        close(reply.text.hidden, golden["llm.speak.hidden"])
        for index, (voice, segment) in enumerate(zip(reply.spoken, known["segments"], strict=True)):
            expected = prefixed(f"tts.{index}.")
            assert voice.text == segment["text"] and voice.text_ids == segment["text_ids"]
            assert voice.tokens == expected["tokens"].tolist() and voice.ended == segment["eos"]
            close(voice.pre_nn_out, expected["pre_nn_out"])
            if "logits" in expected:
                close(voice.logits, expected["logits"])
                for layer, pair in enumerate(voice.prefix_cache):
                    for part, found in zip("kv", pair, strict=True):
                        close(found, expected[f"prefix_cache.{layer}.{part}"])
            sound = torch.cat([expected[f"audio.{j}"].flatten() for j in range(segment["n_audio"])])
            close(reply.sounds[index], sound)

    @torch.no_grad()
    def test_penalties(self, m):
        golden = tensors()
        for name in [name for name in golden if name.startswith("unit.penalty.")]:
            window, penalty = name.removeprefix("unit.penalty.w").removesuffix(".tokens").split("_p")
            vectors = golden["tts.0.text_token_embeds"], golden["tts.0.llm_hidden_prefix"]
            assert released.speak(m, *vectors, int(window), float(penalty), 150).tokens == golden[name].tolist()

    @torch.no_grad()
    def test_positions_at_the_end_of_the_table(self, m, reply):
        golden, known = tensors(), facts()
        caches = [
            (golden[f"encoder.cache.{i}.k"], golden[f"encoder.cache.{i}.v"]) for i in range(m.conf["num_blocks"])
        ]
        index, after = known["unit.pe_wrap.start_pe_index"], []
        for chunk, expected in zip(reply.chunks, golden["unit.pe_wrap.out"], strict=False):
            encoded, index = released.encode_chunk(m, chunk[None], caches, index)
            close(encoded[0], expected)
            after.append(index)
        assert after == known["unit.pe_wrap.pe_after"]

    @torch.no_grad()
    def test_second_turn(self, m):
        golden, known = tensors(), facts()
        first = released.reply(m, golden["input.wav_16k"])
        assert first.kv.get_seq_length() == known["turn2.kv_len_before"]
        steps = released.listen(m, first.chunks[: len(known["turn2.states"])], first.kv)
        for index, step in enumerate(steps):
            close(step.logits, golden[f"turn2.listen.{index}.state_logits"])
        answer = released.answer(m, first.kv, limit=len(known["turn2.ids"]) - 1)
        assert answer.ids == known["turn2.ids"]

    def test_text_cleaning(self):
        for text, expected in facts()["post_process"]:
            assert released.post_process(text) == expected

    @pytest.mark.parametrize("name", ["sub2", "sub1_batch_relu", "sub1_layer_gelu"])
    @torch.no_grad()
    def test_adapters(self, name):
        unit = prefixed(f"unit.adapter.{name}.")
        weights = {key.replace("state.", "adpter."): value for key, value in unit.items()}
        conf = {
            "kernel_size": unit["state.conv1d2.weight"].shape[2],
            "enc_out_dim": unit["x"].shape[2],
            "llm_embed_dim": len(unit["state.project.weight"]),
            "norm": "layer" if "layer" in name else "batch",
            "activation_func": "gelu" if "gelu" in name else "relu",
        }
        caches, m = [], SimpleNamespace(audio=weights, model_conf=conf)
        pieces = [released.adapt_chunk(m, x, caches) for x in unit["x"][:1, :10].split([4, 4, 2], dim=1)]
        close(torch.cat(pieces, dim=1), unit["stream_4_4_2"])
        for index, frames in enumerate(caches):
            close(frames, unit[f"stream_cache.{index}"])

    @torch.no_grad()
    def test_codec_encoder(self, m):
        golden = prefixed("codec.encode.")
        found = released.encode_sound(m, golden["wav24k"])
        close(found.latent, golden["latent"])
        close(found.voice, golden["global_latent"])
        assert torch.equal(found.codes[..., None], golden["codes"])
        assert torch.equal(found.voice_codes[:, None], golden["global_tokens"])


@pytest.fixture(scope="module", params=VARIANTS)
def case(request, tmp_path_factory) -> SimpleNamespace:
    """A random checkpoint: the reference's reply on it, and the folder it was converted to."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoints, llm = make(folder, LLM, **VARIANTS[request.param])
    report = convert(checkpoints, str(llm), folder / "model")
    assert not report.missing
    sound = question(2.7, VARIANTS[request.param]["seed"])
    m = released.load(checkpoints, llm)
    reply = released.reply(m, sound)
    # The cases are worth something: a long question, an inner full stop, ends of speech, margins above rounding.
    assert re.search(r"\d\.", reply.text.text) and len(reply.spoken) > 1
    assert len(reply.steps) > m.conf["left_chunks"] + 2
    assert reply.text.ids and any(voice.ended and voice.tokens for voice in reply.spoken)
    assert _margin(reply.text.logits) > 1e-3

    @cache
    def model() -> FreezeOmniForConditionalGeneration:
        kwargs = {"dtype": torch.float32}
        return FreezeOmniForConditionalGeneration.from_pretrained(folder / "model", llm_kwargs=kwargs).eval()

    processor = FreezeOmniProcessor.from_pretrained(folder / "model")
    return SimpleNamespace(
        folder=folder / "model", m=m, sound=sound, reply=reply, model=model, processor=processor, report=report
    )


def _margin(logits: torch.Tensor) -> float:
    best = logits.topk(2).values
    return float((best[:, 0] - best[:, 1]).min())


def _inputs(case, turns: list) -> dict:
    """Chat of sounds (user) and texts (assistant) as the model reads it."""
    chat = []
    for turn in turns:
        if isinstance(turn, str):
            chat.append({"role": "assistant", "content": turn})
        else:
            audio = {"type": "audio", "array": turn, "sampling_rate": 16000}
            chat.append({"role": "user", "content": [audio]})
    return case.processor.apply_chat_template(chat, tokenize=True, return_dict=True, add_generation_prompt=True)


def test_pipeline(case):
    answer = pipeline("speech-to-speech", model=str(case.folder))(
        case.sound.numpy(), generate_kwargs={"do_sample": False}
    )
    assert answer["text"] == case.reply.text.text
    close(torch.from_numpy(answer["audio"]), torch.cat(case.reply.sounds))


@torch.no_grad()
def test_hearing(case):
    """Encoder and adapter, whole and chunk by chunk."""
    model, reply = case.model(), case.reply
    new = reply.chunks[:, 3:]
    encoded = torch.cat([step.encoded for step in reply.steps], dim=1)
    close(model.speech_encoder(new.flatten(0, 1)[None]).last_hidden_state, encoded)
    close(model.encode_audio(new.flatten(0, 1)[None]).embeds, torch.cat([s.adapted for s in reply.steps], dim=1))
    past = None
    for chunk, step in zip(new, reply.steps, strict=True):
        output = model.encode_audio(chunk[None], cache=past, use_cache=True)
        past = output.cache
        close(output.embeds, step.adapted)
    for layer, (keys, values) in enumerate(reply.steps[-1].encoder_cache):
        close(past.encoder.keys[layer], keys)
        close(past.encoder.values[layer], values)


@torch.no_grad()
def test_thinking_and_speaking(case):
    """State logits, text ids with the hidden states behind them, and speech tokens."""
    model, reply, inputs = case.model(), case.reply, _inputs(case, [case.sound])
    output = model.generate(
        **inputs,
        do_sample=False,
        tokenizer=case.processor.tokenizer,
        return_dict_in_generate=True,
        output_logits=True,
    )
    prompt = inputs["input_ids"].shape[1]
    assert output.sequences[0, prompt:].tolist() == reply.text.ids + [case.m.eod] * reply.text.ended
    close(torch.cat(output.logits), reply.text.logits)
    close(output.hidden_states[0], reply.text.hidden)
    for piece, voice in zip(output.segments[0], reply.spoken, strict=True):
        assert piece.text == voice.text
        assert piece.text_ids.tolist() == voice.text_ids
        assert piece.speech_tokens.tolist() == voice.tokens
        assert (piece.finish_reason == "end") == voice.ended
    whole = model(**inputs, use_cache=True)
    start, end = len(case.m.role_ids) - 1, reply.heard
    close(whole.state_logits[:, start:end], torch.cat([step.logits for step in reply.steps], dim=1))
    close(whole.last_hidden_state[:, start:end], torch.cat([step.hidden for step in reply.steps], dim=1))


@torch.no_grad()
def test_second_turn(case):
    kv = released.begin(case.m)
    released.listen(case.m, case.reply.chunks, kv)
    released.language_step(case.m, released.embed(case.m, case.m.suffix_ids + case.m.tokenizer.encode("He is.")), kv)
    steps = released.listen(case.m, case.reply.chunks[:5], kv)
    ids = released.answer(case.m, kv, limit=11).ids
    model, samples = case.model(), 5 * 4 * case.m.conf["chunk_size"] * released.HOP
    inputs = _inputs(case, [case.sound, "He is.", case.sound[:samples]])
    output = model.generate(
        **inputs,
        do_sample=False,
        generation_mode="text",
        max_new_tokens=12,
        return_dict_in_generate=True,
    )
    found = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    assert found[: len(ids)] == ids
    close(output.state_logits, steps[-1].logits[:, -1])


@torch.no_grad()
def test_a_stream_longer_than_the_table_of_positions(case):
    """More than 5000 encoder frames (200 s) of random features, chunk by chunk."""
    model, conf = case.model(), case.m.conf
    size = conf["chunk_size"]
    chunks = 10 + 3 * torch.randn(12, 4 * size, 80, generator=torch.Generator().manual_seed(1))
    past, caches, index, old, steps = None, [None] * conf["num_blocks"], 0, torch.zeros(3, 80), []
    for number in range(5000 // size + 6):
        chunk = chunks[number % len(chunks)]
        output = model.speech_encoder(chunk[None], cache=past, use_cache=True)
        encoded, index = released.encode_chunk(case.m, torch.cat([old, chunk])[None], caches, index)
        past, old = output.cache, chunk[-3:]
        steps.append(float((output.last_hidden_state - encoded).abs().max()))
    assert index < 5000, "the positions have started over"
    assert max(steps) < 1e-4


@torch.no_grad()
def test_codec_encoder(case):
    """Its numbers are recorded for a voice kernel of 3 with stride 1 only; both sides assume others alike."""
    sound = question(0.6)[None]
    expected = released.encode_sound(case.m, sound)
    found = case.model().codec.encode(sound)
    assert torch.equal(found.audio_codes.flatten(), expected.codes.flatten())
    assert torch.equal(found.global_tokens.flatten(), expected.voice_codes.flatten())


def test_every_tensor_is_accounted_for(case):
    """Used or ignored with a reason; of the LLM's aliases nothing is taken."""
    for name, reason in case.report.ignored.items():
        assert reason and not any(part in name for part in ("encoder.enc", "adpter", "layers_", "generator"))
    assert not any("llm_decoder" in name for name in case.report.used)
