# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Log-mel frames: the reference's numbers, and the same numbers chunk by chunk."""

from time import perf_counter

import numpy as np
import pytest
import torch
from golden_data import facts, prefixed, tensors
from torchaudio.compliance import kaldi
from transformers import WhisperFeatureExtractor

from freeze_omni_hf.processing import (
    AudioContentError,
    AudioRateError,
    AudioTooLongError,
    FeatureCache,
    FreezeOmniFeatureExtractor,
)


RATE = 16000


@pytest.fixture
def extractor():
    return FreezeOmniFeatureExtractor(chunk_frames=facts()["fbank_chunk_frames"])


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def frames(extractor, samples):
    return extractor(samples, sampling_rate=RATE, return_tensors="pt")["input_features"]


def test_golden_chunks(extractor):
    expected = prefixed("frontend.")["fbank_chunks"]
    features = frames(extractor, tensors()["input.wav_16k"])
    # The reference puts three earlier frames before each chunk; the encoder keeps those itself.
    new = expected[:, 3:].flatten(0, 1)
    assert features.shape == (1, *new.shape)
    torch.testing.assert_close(features[0], new, atol=1e-3, rtol=0)


def test_golden_without_history(extractor):
    expected = tensors()["unit.fbank_offline"]
    samples = tensors()["input.wav_16k"][None]
    torch.testing.assert_close(extractor.log_mels(samples)[0, : len(expected)], expected, atol=1e-3, rtol=0)


def test_equals_kaldi_and_covers_the_stated_samples(extractor):
    samples = noise(5000)
    padded = torch.nn.functional.pad(samples, (240, -5000 % extractor.chunk_length))
    expected = kaldi.fbank(padded[None] * 32768, dither=0.0, num_mel_bins=80)
    features = frames(extractor, samples)
    torch.testing.assert_close(features[0], expected, atol=1e-5, rtol=0)
    assert features.shape[1] == extractor.num_frames(5000)
    index = 20
    changed = samples.clone()
    changed[160 * index + 160 :] = 0.0
    changed[: 160 * index - 240] = 0.0
    assert torch.equal(frames(extractor, changed)[0, index], features[0, index])
    changed[160 * index + 159] += 0.5
    assert not torch.equal(frames(extractor, changed)[0, index], features[0, index])


@pytest.mark.parametrize("chunk_frames", [4, 16, 32])
@pytest.mark.parametrize("seed", range(4))
def test_stream_equals_offline(chunk_frames, seed):
    extractor = FreezeOmniFeatureExtractor(chunk_frames=chunk_frames)
    generator = np.random.default_rng(seed)
    samples = noise(2, int(generator.integers(1, 20000)), seed=seed)
    offline = frames(extractor, samples)
    cache, parts, position = None, [], 0
    while position < samples.shape[1]:
        step = int(generator.integers(0, 6000))
        part, cache = extractor.stream(samples[:, position : position + step], cache)
        assert part.shape[1] % chunk_frames == 0
        assert cache.samples.shape[1] < extractor.overlap_length + extractor.chunk_length
        parts.append(part)
        position += step
    part, cache = extractor.stream(None, cache, final=True)
    assert cache is None
    assert torch.equal(torch.cat([*parts, part], dim=1), offline)


def test_stream_of_single_samples_and_of_nothing(extractor):
    samples = noise(extractor.chunk_length)
    cache = None
    for sample in samples[:-1]:
        part, cache = extractor.stream(sample[None], cache)
        assert part.shape == (1, 0, 80)
    part, cache = extractor.stream(samples[-1:], cache)
    assert torch.equal(part, frames(extractor, samples))
    part, cache = extractor.stream(None, cache, final=True)
    assert part.shape == (1, 0, 80)
    assert extractor.stream(None, None, final=True)[0].shape == (1, 0, 80)


def test_stream_takes_integer_pcm(extractor):
    pcm = (noise(4000) * 32768).to(torch.int16)
    expected, _ = extractor.stream(pcm / 32768, final=True)
    assert torch.equal(extractor.stream(pcm, final=True)[0], expected)
    assert torch.equal(extractor.stream(pcm.numpy(), final=True)[0], expected)


def test_cache_rows_and_state(extractor):
    first, second = noise(1, 3000), noise(1, 3000, seed=1)
    _, together = extractor.stream(torch.cat([first, second]))
    _, alone = extractor.stream(second)
    assert torch.equal(together.select([1]).samples, alone.samples)
    joined = FeatureCache.cat([together.select([0]), alone])
    assert torch.equal(joined.samples, together.samples)
    restored = alone.load_state_dict({name: tensor.clone() for name, tensor in together.state_dict().items()})
    assert torch.equal(restored.to("cpu").samples, together.samples)
    kept = together.samples.clone()
    extractor.stream(torch.cat([first, second]), together)
    assert torch.equal(together.samples, kept)
    with pytest.raises(ValueError, match="different places in their chunks"):
        FeatureCache.cat([alone, extractor.stream(first[:, :100])[1]])
    with pytest.raises(ValueError, match="1 rows, the cache has 2"):
        extractor.stream(first, together)


def test_batch_rows_equal_rows_alone(extractor):
    rows = [noise(n, seed=n) for n in (1, 2560, 7001, 40000)]
    batch = extractor(rows, sampling_rate=RATE, return_tensors="pt")
    features, mask = batch["input_features"], batch["feature_attention_mask"]
    assert features.dtype == torch.float32 and mask.dtype == torch.int64
    assert features.shape[1] % extractor.chunk_frames == 0
    for row, feature, valid in zip(rows, features, mask, strict=True):
        alone = extractor(row, sampling_rate=RATE, return_tensors="pt")
        count = alone["input_features"].shape[1]
        assert alone["feature_attention_mask"].all() and count == extractor.num_frames(len(row))
        assert torch.equal(feature[:count], alone["input_features"][0])
        assert valid.tolist() == [1] * count + [0] * (len(valid) - count)
        assert not feature[count:].any()


def test_input_kinds_and_padding(extractor):
    samples = noise(5000)
    expected = frames(extractor, samples)
    for audio in (samples.numpy(), samples.tolist(), [samples.tolist()], samples[None].numpy(), [samples]):
        assert torch.equal(frames(extractor, audio), expected)
    result = extractor(samples, sampling_rate=RATE)
    assert isinstance(result["input_features"], np.ndarray) and list(result) == extractor.model_input_names
    wide = extractor(samples, sampling_rate=RATE, padding="max_length", max_length=100)["input_features"]
    assert wide.shape[1] == -(-100 // extractor.chunk_frames) * extractor.chunk_frames
    ragged = extractor([samples, samples[:100]], sampling_rate=RATE, padding=False)["input_features"]
    assert [len(row) for row in ragged] == [expected.shape[1], extractor.chunk_frames]
    assert "feature_attention_mask" not in extractor(samples, sampling_rate=RATE, return_attention_mask=False)


def test_silence_is_finite(extractor):
    assert torch.isfinite(frames(extractor, torch.zeros(4000))).all()


def test_refusals(extractor):
    with pytest.raises(AudioRateError, match="8000 Hz.*works at 16000 Hz.*load_audio"):
        extractor(noise(100), sampling_rate=8000)
    with pytest.raises(AudioContentError, match="empty"):
        extractor(noise(0), sampling_rate=RATE)
    with pytest.raises(AudioContentError, match="NaN"):
        extractor([noise(10), noise(10) * torch.nan], sampling_rate=RATE)
    with pytest.raises(AudioContentError, match="NaN"):
        extractor.stream(noise(10) * torch.nan)
    with pytest.raises(ValueError, match="shape \\(1, 2, 3\\)"):
        extractor.stream(noise(1, 2, 3))
    with pytest.raises(AudioTooLongError, match="2.0 s.*1 s"):
        FreezeOmniFeatureExtractor(max_seconds=1)(noise(2 * RATE), sampling_rate=RATE)
    with pytest.raises(ValueError, match="chunk_frames=0"):
        FreezeOmniFeatureExtractor(chunk_frames=0)


def test_save_and_load(extractor, tmp_path):
    extractor = FreezeOmniFeatureExtractor(chunk_frames=32, max_seconds=7)
    extractor.save_pretrained(tmp_path)
    loaded = FreezeOmniFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    assert loaded.chunk_frames == 32 and loaded.max_seconds == 7


def test_a_chunk_costs_little(extractor):
    cache, times = None, []
    samples = noise(extractor.chunk_length)
    for _ in range(50):
        start = perf_counter()
        _, cache = extractor.stream(samples, cache)
        times.append(perf_counter() - start)
    assert sorted(times)[10] < 3e-3


def test_whisper_features_are_whispers_up_to_the_floor():
    samples = 0.4 * torch.randn(16000, generator=torch.Generator().manual_seed(0)).cumsum(0).sin().numpy()
    ours = FreezeOmniFeatureExtractor(feature_type="whisper")
    found = ours(samples, sampling_rate=16000, return_tensors="pt")["input_features"][0]
    whisper = WhisperFeatureExtractor()
    # Whisper centres frame i on sample 160 i, ours on 160 i - 40.
    shifted = np.concatenate([np.zeros(40, dtype=np.float32), samples])
    expected = torch.from_numpy(whisper(shifted, sampling_rate=16000)["input_features"][0].T)
    inner = slice(3, 95)
    torch.testing.assert_close(found[inner], expected[inner], atol=1e-4, rtol=0)
    pieces, cache = [], None
    for start in range(0, 16000, 777):
        frames, cache = ours.stream(samples[start : start + 777], cache)
        pieces.append(frames)
    pieces.append(ours.stream(None, cache, final=True)[0])
    assert torch.equal(torch.cat(pieces, dim=1)[0], found)
    with pytest.raises(ValueError, match="'mfcc'"):
        FreezeOmniFeatureExtractor(feature_type="mfcc")


@pytest.mark.parametrize("length", [0, 1, 2559, 2560, 7000])
def test_trailing_silence_is_zeros_at_the_end(length):
    plain, trailing = FreezeOmniFeatureExtractor(), FreezeOmniFeatureExtractor(trailing_silence=0.3)
    wave = torch.randn(length).clamp(-1, 1) * 0.1
    expected = plain.stream(torch.cat((wave, torch.zeros(4800))), final=True)[0]
    first, cache = trailing.stream(wave[: length // 2])
    second, _ = trailing.stream(wave[length // 2 :], cache, final=True)
    found = torch.cat((first, second), dim=1)
    assert torch.equal(found, expected)
    assert found.shape[1] == trailing.num_frames(length)


def test_trailing_silence_is_saved_and_checked(tmp_path):
    FreezeOmniFeatureExtractor(trailing_silence=0.25).save_pretrained(tmp_path)
    assert FreezeOmniFeatureExtractor.from_pretrained(tmp_path).trailing_silence == 0.25
    with pytest.raises(ValueError, match="trailing_silence"):
        FreezeOmniFeatureExtractor(trailing_silence=-1.0)
