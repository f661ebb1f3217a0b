# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Windows and streams of the codec, and the silence splitter."""

import pytest
import torch
from golden_data import facts, prefixed, tensors
from test_codec import LIGHT, RELEASED_KIND, build, every_kind, released

from freeze_omni_hf.models.codec import CodecStream, SilenceSplitter, finish_streams, push_streams, window_plan


__all__ = ["released"]  # the fixture
SEGMENTS = range(len(facts()["segments"]))


def random_codes(codec, size: int) -> torch.Tensor:
    shape = (size,) if codec.config.num_codebooks == 1 else (size, codec.config.num_codebooks)
    return torch.randint(0, codec.config.codebook_size, shape)


def in_pieces(values: torch.Tensor, sizes: tuple[int, ...]) -> list[torch.Tensor]:
    pieces, start = [], 0
    while start < len(values):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(values[start : start + size])
        start += size
    return pieces


@pytest.mark.parametrize("segment", SEGMENTS)
def test_windows_are_the_released_ones(segment):
    run, tokens = facts()["tts.run"], tensors()[f"tts.{segment}.tokens"]
    golden = prefixed(f"tts.{segment}.codec.")
    plan = window_plan(len(tokens), run["codec_chunk_size"], run["codec_padding_size"])
    assert len(plan) == len(golden)
    for index, window in enumerate(plan):
        assert torch.equal(tokens[window.start : window.end], golden[f"{index}.codes"].flatten())


@pytest.mark.parametrize("sizes", [(40, 10, None), (7, 3, 2), (3, 5, None), (4, 0, 1), (1, 1, 1)])
@pytest.mark.parametrize("num_tokens", [0, 1, 9, 50, 123])
def test_windows_cover_every_token_once(num_tokens, sizes):
    plan = window_plan(num_tokens, *sizes)
    kept = [token for window in plan for token in range(window.keep_start, window.keep_end)]
    assert kept == list(range(num_tokens))
    for window in plan:
        assert window.start == max(0, window.keep_start - sizes[1])
        assert window.end == min(num_tokens, window.keep_end + sizes[1])


@pytest.mark.parametrize("sizes", [(0, 1), (4, -1), (4, 1, 0)])
def test_impossible_windows_are_refused(sizes):
    with pytest.raises(ValueError, match="chunk_size="):
        window_plan(10, *sizes)


def speak(codec, tokens, chunk_size, overlap, splitter) -> list[torch.Tensor]:
    """The pieces a listener gets, token by token."""
    stream, pieces = CodecStream(codec, chunk_size, overlap), []
    for token in tokens:
        ready = stream.push(token[None])
        if len(ready):
            pieces.append(splitter.push(ready))
    pieces.append(splitter.finish(stream.finish()))
    return [piece for piece in pieces if len(piece)]


def assert_pieces(pieces, golden):
    expected = [golden[f"{index}"].flatten() for index in range(len(golden))]
    assert [len(piece) for piece in pieces] == [len(piece) for piece in expected]
    for piece, reference in zip(pieces, expected, strict=True):
        assert torch.allclose(piece, reference, atol=1e-4)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_released_stream(released, segment):
    run = facts()["tts.run"]
    splitter = SilenceSplitter(run["N"], run["seg_threshold"])
    tokens = tensors()[f"tts.{segment}.tokens"]
    pieces = speak(released, tokens, run["codec_chunk_size"], run["codec_padding_size"], splitter)
    assert_pieces(pieces, prefixed(f"tts.{segment}.audio."))
    offline = released.decode_windows([tokens], run["codec_chunk_size"], run["codec_padding_size"])[0]
    assert torch.allclose(torch.cat(pieces), offline, atol=1e-5)


@pytest.mark.parametrize("case", [name for name in facts() if name.startswith("stream.")])
def test_released_stream_cut_at_silence(released, case):
    run = facts()[case]
    splitter = SilenceSplitter(run["N"], run["seg_threshold"])
    tokens = tensors()[f"tts.{run['segment']}.tokens"]
    pieces = speak(released, tokens, run["codec_chunk_size"], run["codec_padding_size"], splitter)
    assert_pieces(pieces, prefixed(f"{case}.audio."))


@every_kind
def test_windows_with_enough_context_equal_the_full_decode(settings):
    codec = build(settings)
    utterances = [random_codes(codec, size) for size in (41, 0, 3, 77)]
    pieces = codec.decode_windows(utterances, 8, codec.context_tokens, max_batch_tokens=150)
    for codes, piece in zip(utterances, pieces, strict=True):
        assert piece.shape == (len(codes) * codec.config.samples_per_token,)
        if len(codes):
            with torch.no_grad():
                assert torch.allclose(piece, codec.decode(codes[None]).audio_values[0], atol=1e-5)


@every_kind
@pytest.mark.parametrize("sizes", [(6, 2, None), (5, 3, 1), (2, 4, None)])
def test_stream_equals_offline_windows(settings, sizes):
    codec = build(settings)
    codes = random_codes(codec, 53)
    offline = codec.decode_windows([codes], sizes[0], sizes[1], first_chunk_size=sizes[2])[0]
    stream = CodecStream(codec, *sizes)
    for _ in range(2):  # a finished stream starts anew
        sounds = [stream.push(piece) for piece in in_pieces(codes, (1, 4, 0, 17, 2))]
        first = next(index for index, sound in enumerate(sounds) if len(sound))
        consumed = sum(len(piece) for piece in in_pieces(codes, (1, 4, 0, 17, 2))[: first + 1])
        assert consumed >= (sizes[2] or sizes[0]) + sizes[1]
        assert torch.allclose(torch.cat([*sounds, stream.finish()]), offline, atol=1e-5)
    assert len(stream.finish()) == 0


def test_first_chunk_makes_early_sound():
    codec = build(LIGHT)
    stream = CodecStream(codec, 20, 3, first_chunk_size=2)
    sounds = [stream.push(torch.tensor([token])) for token in range(30)]
    assert [index for index, sound in enumerate(sounds) if len(sound)] == [4, 24]


def test_many_streams_at_once_equal_each_alone():
    codec = build(RELEASED_KIND)
    voices = [[1, 2], None, [7, 9]]
    codes = [random_codes(codec, size) for size in (31, 12, 0)]
    streams = [CodecStream(codec, 5, 2, 1, voice) for voice in voices]
    sounds = [[] for _ in streams]
    for start in range(0, 31, 4):
        ready = push_streams(streams, [row[start : start + 4] for row in codes])
        for sound, piece in zip(sounds, ready, strict=True):
            sound.append(piece)
    for sound, piece in zip(sounds, finish_streams(streams), strict=True):
        sound.append(piece)
    for row, voice, sound in zip(codes, voices, sounds, strict=True):
        alone = codec.decode_windows([row], 5, 2, voice, first_chunk_size=1)[0]
        assert torch.allclose(torch.cat(sound), alone, atol=1e-5)


def test_stream_state_can_be_saved_and_copied():
    codec = build(LIGHT)
    codes = random_codes(codec, 40)
    stream = CodecStream(codec, 6, 2)
    stream.push(codes[:17])
    other = CodecStream(codec, 6, 2)
    other.load_state_dict(stream.state_dict())
    kept = stream.state.clone()
    expected = torch.cat([stream.push(codes[17:]), stream.finish()])
    assert torch.equal(torch.cat([other.push(codes[17:]), other.finish()]), expected)
    stream.state = kept.to("cpu")
    assert torch.equal(torch.cat([stream.push(codes[17:]), stream.finish()]), expected)
    assert len(kept.codes) <= 6 + 2 * 2


def test_bad_token_names_itself_and_leaves_the_stream_alive():
    codec = build(LIGHT)
    stream = CodecStream(codec, 4, 1)
    with pytest.raises(ValueError, match="id 33.*32 entries"):
        stream.push(torch.tensor([1, 33]))
    with pytest.raises(ValueError, match=r"\(n\)"):
        stream.push(torch.tensor([[1, 3]]))
    assert len(torch.cat([stream.push(torch.arange(7)), stream.finish()])) == 7 * codec.config.samples_per_token


def test_bad_token_of_one_conversation_changes_no_other():
    codec = build(LIGHT)
    streams = [CodecStream(codec, 4, 1), CodecStream(codec, 4, 1)]
    with pytest.raises(ValueError, match="id 40"):
        push_streams(streams, [torch.arange(3), torch.tensor([40])])
    assert [len(sound) for sound in finish_streams(streams)] == [0, 0]


@pytest.mark.parametrize("case", [name for name in facts() if name.startswith("unit.fms.")])
def test_splitter_equals_reference(case):
    golden, settings = prefixed(f"{case}."), facts()[case]
    golden = {name: value.flatten() for name, value in golden.items()}
    splitter = SilenceSplitter(settings["N"], settings["threshold"])
    splitter._held = golden["buffer"]
    piece = splitter.push(golden["syn"])
    assert (len(piece) > 0) == settings["emitted"]
    if settings["emitted"]:
        assert torch.equal(piece, golden["syn_out"])
    assert torch.equal(splitter.held, golden["buffer_out"])


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101])
def test_short_stretches_are_held_back(length):
    splitter = SilenceSplitter(100, threshold=1.0)
    audio = torch.rand(length)
    piece = splitter.push(audio)
    assert length > 100 or len(piece) == 0
    assert torch.equal(torch.cat([piece, splitter.finish()]), audio)
    assert len(splitter.finish()) == 0


def test_splitter_loses_nothing_and_obeys_the_threshold_of_a_call():
    splitter = SilenceSplitter(50, threshold=0.0)
    audio = torch.randn(900)
    assert len(splitter.push(audio[:300])) == 0
    assert len(piece := splitter.push(audio[300:600], threshold=10.0)) > 300
    assert torch.equal(torch.cat([piece, splitter.finish(audio[600:])]), audio)


def test_leading_silence_is_trimmed_once_a_sentence():
    splitter = SilenceSplitter(10, threshold=10.0, trim_leading=0.1)
    audio = torch.cat([torch.full((70,), 0.01), torch.ones(30), torch.full((40,), 0.01), torch.ones(60)])
    for _ in range(2):
        pieces = [splitter.push(part) for part in in_pieces(audio, (40,))]
        assert torch.equal(torch.cat([*pieces, splitter.finish()]), audio[70:])


def test_splitter_refuses_batches():
    with pytest.raises(ValueError, match=r"\(1, 20\)"):
        SilenceSplitter(4).push(torch.zeros(1, 20))
