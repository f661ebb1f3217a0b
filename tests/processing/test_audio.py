# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Every way in and out for sound, and every way it can be refused."""

import base64
import http.server
import io
import threading

import numpy as np
import pytest
import soundfile
import torch

from freeze_omni_hf.processing import (
    AudioContentError,
    AudioError,
    AudioFormatError,
    AudioNotFoundError,
    AudioRateError,
    AudioTooLongError,
    load_audio,
    save_audio,
)


RATE = 16000


def sine(rate: int = RATE, seconds: float = 0.5, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def frequency_of(samples: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate / len(samples)


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "tone ä.wav"
    soundfile.write(path, sine(), RATE, subtype="FLOAT")
    return path


def test_sources_give_the_same_samples(wav):
    data = wav.read_bytes()
    sources = {
        "path": wav,
        "string": str(wav),
        "file URL": wav.as_uri(),
        "data URL": "data:audio/wav;base64," + base64.b64encode(data).decode(),
        "bytes": data,
        "bytearray": bytearray(data),
        "file object": io.BytesIO(data),
        "dict of path": {"path": str(wav)},
        "dict of a dataset": {"bytes": data, "path": "elsewhere.wav"},
        "dict of path, no bytes": {"bytes": None, "path": str(wav)},
        "dict of array": {"array": sine(), "sampling_rate": RATE},
        "dict of raw": {"raw": sine(), "sampling_rate": RATE},
        "nested dict": {"audio": {"array": sine(), "sampling_rate": RATE}},
    }
    for name, source in sources.items():
        samples = load_audio(source)
        assert samples.dtype == np.float32 and samples.ndim == 1, name
        np.testing.assert_array_equal(samples, sine(), err_msg=name)
    with wav.open("rb") as file:
        np.testing.assert_array_equal(load_audio(file), sine())
    for array in (sine(), sine().astype(np.float64), torch.from_numpy(sine()), sine().tolist()):
        np.testing.assert_array_equal(load_audio(array, source_sampling_rate=RATE), sine())


def test_http(wav):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(wav.parent))

        def log_message(self, *args):
            pass

    wav.rename(wav.parent / "tone.wav")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        np.testing.assert_array_equal(load_audio(f"{address}/tone.wav"), sine())
        with pytest.raises(AudioNotFoundError, match="missing.wav cannot be fetched.*404"):
            load_audio(f"{address}/missing.wav")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_keep_the_tone(rate, tmp_path):
    soundfile.write(tmp_path / "tone.flac", sine(rate), rate)
    for samples in (load_audio(tmp_path / "tone.flac"), load_audio(sine(rate), source_sampling_rate=rate)):
        assert abs(len(samples) - RATE // 2) <= 1
        assert abs(frequency_of(samples) - 440) <= 2
        assert abs(np.abs(samples[1000:-1000]).max() - 0.5) < 0.01


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_compressed_formats(suffix, tmp_path):
    soundfile.write(tmp_path / f"tone.{suffix}", sine(), RATE)
    assert abs(frequency_of(load_audio(tmp_path / f"tone.{suffix}")) - 440) <= 2


def test_integers_are_scaled():
    full = {np.int16: 32768, np.int32: 2**31}
    for dtype, scale in full.items():
        values = np.array([-scale, 0, scale // 2], dtype=dtype)
        np.testing.assert_array_equal(load_audio(values, source_sampling_rate=RATE), [-1.0, 0.0, 0.5])
        np.testing.assert_array_equal(
            load_audio(torch.from_numpy(values), source_sampling_rate=RATE), [-1.0, 0.0, 0.5]
        )
    unsigned = np.array([0, 128, 192], dtype=np.uint8)
    np.testing.assert_array_equal(load_audio(unsigned, source_sampling_rate=RATE), [-1.0, 0.0, 0.5])


def test_channels_are_mixed_by_their_mean(tmp_path):
    left, right = sine(frequency=300), sine(frequency=900)
    expected = (left + right) / 2
    for stereo in (np.stack([left, right]), np.stack([left, right], axis=1)):
        np.testing.assert_allclose(load_audio(stereo, source_sampling_rate=RATE), expected, atol=1e-7)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "stereo.wav"), expected, atol=1e-7)
    np.testing.assert_array_equal(load_audio(left[None], source_sampling_rate=RATE), left)


def test_a_file_shorter_than_its_channels_is_not_transposed(tmp_path):
    soundfile.write(tmp_path / "short.wav", np.array([[0.5, -0.25]]), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "short.wav"), [0.125])


def test_silence_is_allowed():
    assert not load_audio(np.zeros(100, np.float32), source_sampling_rate=RATE).any()


def test_refusals_name_the_thing_and_the_cure(tmp_path):
    (tmp_path / "text.wav").write_text("this is not a sound")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "long.wav", np.zeros(3 * RATE), RATE)
    array = {"source_sampling_rate": RATE}
    cases = [
        (AudioNotFoundError, "missing.wav does not exist. Check the path", tmp_path / "missing.wav", {}),
        (AudioNotFoundError, "is a folder", tmp_path, {}),
        (AudioNotFoundError, "cannot be fetched", "http://127.0.0.1:9/a.wav", {"timeout": 1}),
        (AudioFormatError, "text.wav cannot be read as audio.*convert", tmp_path / "text.wav", {}),
        (AudioFormatError, "cannot be read as audio", b"RIFF0000", {}),
        (AudioFormatError, "opened as text.*'rb'", io.StringIO("text"), {}),
        (AudioFormatError, "base64 data URLs", "data:audio/wav,abc", {}),
        (AudioFormatError, "not valid base64", "data:audio/wav;base64,?", {}),
        (AudioFormatError, "keys \\['text'\\], but none of", {"text": "hello"}, {}),
        (AudioFormatError, "type NoneType is not understood", None, {}),
        (AudioFormatError, "type int64, whose scale is unknown", np.arange(5), array),
        (AudioFormatError, "type bool", np.zeros(5, bool), array),
        (AudioFormatError, "40 channels are more than 8.*list", np.zeros((40, 100), np.float32), array),
        (AudioFormatError, "shape \\(1, 2, 3\\)", np.zeros((1, 2, 3), np.float32), array),
        (AudioContentError, "empty.wav is empty", tmp_path / "empty.wav", {}),
        (AudioContentError, "nothing.wav is empty", tmp_path / "nothing.wav", {}),
        (AudioContentError, "is empty", b"", {}),
        (AudioContentError, "is empty", np.zeros(0, np.float32), array),
        (AudioContentError, "is empty", [], array),
        (AudioContentError, "is empty", np.zeros((2, 0), np.float32), array),
        (AudioContentError, "NaN", np.array([0.0, np.nan]), array),
        (AudioContentError, "infinite", torch.tensor([0.0, torch.inf]), array),
        (AudioRateError, "without its sampling rate.*source_sampling_rate=", sine(), {}),
        (AudioRateError, "is 0; it must be a positive", sine(), {"source_sampling_rate": 0}),
        (AudioRateError, "is -8000", {"array": sine(), "sampling_rate": -8000}, {}),
        (AudioRateError, "is 0", {"array": sine(), "sampling_rate": 0}, array),
        (AudioRateError, "wanted sampling_rate is 0", sine(), {"sampling_rate": 0, **array}),
        (AudioTooLongError, "lasts 3.0 s, longer than the limit of 2 s", tmp_path / "long.wav", {"max_seconds": 2}),
        (AudioTooLongError, "lasts 0.5 s.*0.1 s", sine(), {"max_seconds": 0.1, **array}),
    ]
    for error, message, source, arguments in cases:
        with pytest.raises(error, match=message):
            load_audio(source, **arguments)
        assert issubclass(error, AudioError) and issubclass(error, ValueError)
    with pytest.raises(FileNotFoundError):
        load_audio(tmp_path / "missing.wav")


def test_save_round_trip_and_clipping(tmp_path):
    path = save_audio(torch.from_numpy(sine(24000))[None], tmp_path / "answer.wav")
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 24000
    np.testing.assert_allclose(samples, sine(24000), atol=1e-4)
    save_audio(np.array([-3.0, -1.0, 0.0, 1.0, 3.0]), tmp_path / "loud.wav", RATE)
    samples, rate = soundfile.read(tmp_path / "loud.wav", dtype="int16")
    assert rate == RATE
    np.testing.assert_array_equal(samples, [-32768, -32768, 0, 32767, 32767])
    save_audio(np.array([-32768, 5], np.int16), tmp_path / "exact.wav")
    np.testing.assert_array_equal(soundfile.read(tmp_path / "exact.wav", dtype="int16")[0], [-32768, 5])


def test_save_batches_and_file_objects(tmp_path):
    batch = [torch.zeros(10), torch.zeros(20), torch.zeros(0)]
    paths = save_audio(batch, tmp_path / "answer.wav")
    assert [path.name for path in paths] == ["answer-0.wav", "answer-1.wav", "answer-2.wav"]
    assert [soundfile.info(path).frames for path in paths] == [10, 20, 0]
    names = [tmp_path / "a.wav", str(tmp_path / "b.ogg")]
    assert [path.name for path in save_audio(np.zeros((2, 100)), names)] == ["a.wav", "b.ogg"]
    assert save_audio([np.zeros(5)], tmp_path / "one.wav") == tmp_path / "one.wav"
    assert save_audio([0.0, 0.5, 0.25], tmp_path / "list.wav") == tmp_path / "list.wav"
    file = io.BytesIO()
    save_audio(sine(), file, RATE)
    np.testing.assert_allclose(load_audio(file.getvalue()), sine(), atol=1e-4)


def test_save_refusals(tmp_path):
    cases = [
        (AudioNotFoundError, "folder .*absent does not exist.*mkdir", np.zeros(5), tmp_path / "absent/a.wav", {}),
        (AudioFormatError, "a.xyz does not end in a known", np.zeros(5), tmp_path / "a.xyz", {}),
        (AudioFormatError, "no sound to save.*generation_mode", None, tmp_path / "a.wav", {}),
        (AudioFormatError, "shape \\(2, 3, 4\\)", np.zeros((2, 3, 4)), tmp_path / "a.wav", {}),
        (AudioFormatError, "2 waveforms, but 1 file names", np.zeros((2, 9)), [tmp_path / "a.wav"], {}),
        (AudioFormatError, "2 waveforms do not fit", np.zeros((2, 9)), io.BytesIO(), {}),
        (AudioContentError, "NaN", np.array([np.nan]), tmp_path / "a.wav", {}),
        (AudioRateError, "sampling_rate is 0", np.zeros(5), tmp_path / "a.wav", {"sampling_rate": 0}),
    ]
    for error, message, audio, path, arguments in cases:
        with pytest.raises(error, match=message):
            save_audio(audio, path, **arguments)
    assert not list(tmp_path.iterdir())
