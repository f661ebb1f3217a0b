# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Augmentation does what its numbers say, and the same twice."""

import numpy as np
import pytest
import torch

from freeze_omni_hf.training.augmentation import (
    NOISES,
    Augmentation,
    add_noise,
    change_speed,
    clip,
    gain,
    in_room,
    noise,
    pad_silence,
    room_response,
    row_generator,
    spec_augment,
    telephone,
)


RATE = 16000


def tone(frequency=440.0, seconds=1.0, level=0.3):
    return (level * np.sin(2 * np.pi * frequency * np.arange(int(RATE * seconds)) / RATE)).astype(np.float32)


def power(samples):
    return float(np.mean(np.square(samples, dtype=np.float64)))


def level_db(samples, frequency):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    return 10 * np.log10(spectrum[round(frequency * len(samples) / RATE)] + 1e-12)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("snr_db", [-5.0, 10.0, 30.0])
def test_noise_has_the_ratio_it_says(kind, snr_db):
    speech = tone()
    before = speech.copy()
    noisy = add_noise(speech, snr_db, kind, row_generator(0, 0, 0), [tone(100), tone(300, 0.3)])
    assert noisy.shape == speech.shape and noisy.dtype == np.float32
    added = noisy.astype(np.float64) - speech
    assert 10 * np.log10(power(speech) / power(added)) == pytest.approx(snr_db, abs=0.05)
    np.testing.assert_array_equal(speech, before)


def test_colours_of_noise():
    def slope(kind):
        spectrum = np.abs(np.fft.rfft(noise(1 << 16, kind, row_generator(1, 0, 0)))) ** 2
        low, high = spectrum[1000:2000].mean(), spectrum[8000:16000].mean()
        return 10 * np.log10(low / high) / 3  # dB an octave

    assert slope("white") == pytest.approx(0, abs=0.3)
    assert slope("pink") == pytest.approx(3, abs=0.3)
    assert slope("brown") == pytest.approx(6, abs=0.5)
    with pytest.raises(ValueError, match="'blue'.*white, pink"):
        noise(10, "blue", row_generator(0, 0, 0))
    with pytest.raises(ValueError, match="other rows"):
        add_noise(tone(), 10, "babble", row_generator(0, 0, 0))
    assert not add_noise(np.zeros(100, np.float32), 10, "white", row_generator(0, 0, 0)).any()


def test_room_decays_by_60_db_and_delays_nothing():
    response = room_response(row_generator(0, 0, 0), reverberation=0.5, direct_db=0.0)
    assert response[0] == 1.0 and len(response) == RATE // 2
    assert np.sum(response[1:] ** 2) == pytest.approx(1.0, rel=1e-3)
    early, late = (power(response[int(t * RATE) : int((t + 0.05) * RATE)]) for t in (0.05, 0.3))
    assert 10 * np.log10(early / late) == pytest.approx(0.25 / 0.5 * 60, abs=2)
    click = np.zeros(4000, np.float32)
    click[1000] = 0.5
    wet = in_room(click, response)
    assert len(wet) == 4000 and np.argmax(np.abs(wet)) == 1000 and np.abs(wet[:1000]).max() < 1e-6
    assert power(wet) == pytest.approx(power(click), rel=1e-3)


def test_level_and_clipping():
    assert power(gain(tone(), -6)) == pytest.approx(power(tone()) * 10**-0.6, rel=1e-4)
    assert np.abs(gain(tone(), 40)).max() == 1.0
    assert np.abs(clip(tone(), 0.5)).max() == pytest.approx(0.15, rel=1e-3)


def test_telephone_band():
    speech = tone(1000) + tone(100) + tone(6000)
    heard = telephone(speech)
    assert heard.shape == speech.shape
    assert level_db(heard, 1000) == pytest.approx(level_db(speech, 1000), abs=0.5)
    for lost in (100, 6000):
        assert level_db(heard, lost) < level_db(speech, lost) - 25
    assert telephone(np.zeros(3, np.float32)).shape == (3,)


def test_speed_and_silence():
    assert len(change_speed(tone(), 1.25)) == pytest.approx(RATE / 1.25, abs=2)
    fast = change_speed(tone(400), 1.25)
    assert np.argmax(np.abs(np.fft.rfft(fast))) * RATE / len(fast) == pytest.approx(500, abs=2)
    padded = pad_silence(tone(), 0.5, 0.25)
    assert len(padded) == 28000 and not padded[:8000].any() and not padded[-4000:].any()


def test_spec_augment_masks_within_its_limits():
    features = torch.randn(100, 80)
    seen = set()
    for index in range(200):
        masked = spec_augment(features, row_generator(3, 0, index))
        changed = masked != features
        bins, frames = changed.all(dim=0).sum().item(), changed.all(dim=1).sum().item()
        assert bins <= 10 and frames <= 20
        assert torch.allclose(masked[changed], features.mean())
        seen.add((bins, frames))
    assert len(seen) > 50
    assert spec_augment(torch.randn(3, 80), row_generator(0, 0, 0)).shape == (3, 80)
    again = spec_augment(features, row_generator(3, 0, 7))
    torch.testing.assert_close(again, spec_augment(features, row_generator(3, 0, 7)), rtol=0, atol=0)


def test_augmentation_is_a_function_of_seed_epoch_and_row():
    augment, voices = Augmentation(), [tone(200), tone(350)]
    speech = tone()
    first = [augment(speech, row_generator(5, 1, index), voices) for index in range(40)]
    again = [augment(speech, row_generator(5, 1, index), voices) for index in reversed(range(40))][::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    other_epoch = [augment(speech, row_generator(5, 2, index), voices) for index in range(40)]
    assert sum(len(a) != len(b) or (a != b).any() for a, b in zip(first, other_epoch, strict=True)) > 30
    for samples in first:
        assert samples.dtype == np.float32 and np.isfinite(samples).all() and np.abs(samples).max() <= 1
    np.testing.assert_array_equal(Augmentation.off()(speech, row_generator(0, 0, 0)), speech)
    np.testing.assert_array_equal(speech, tone())


def test_settings():
    assert Augmentation.from_dict({"snr_db": (0, 10)}).snr_db == (0, 10)
    assert Augmentation.from_dict(None) == Augmentation()
    with pytest.raises(ValueError, match="no setting snr; it has .*snr_db"):
        Augmentation.from_dict({"snr": 3})
