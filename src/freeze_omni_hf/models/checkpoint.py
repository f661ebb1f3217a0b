# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What stands around a checkpoint's weights: its configuration, completeness, and the stub for remote code."""

import json
import os
from pathlib import Path
from typing import Any

from ..configuration import FreezeOmniConfig


def load_config(place: str | os.PathLike, hub: dict[str, Any]) -> FreezeOmniConfig:
    """The configuration of a folder or a Hub repository; a missing one is named."""
    try:
        return FreezeOmniConfig.from_pretrained(place, **hub)
    except OSError as error:
        raise OSError(
            f"The checkpoint {os.fspath(place)!r} is no folder with a config.json, and the Hub did not give it "
            f"({str(error).splitlines()[0]})."
        ) from error


def refuse_incomplete(place: str | os.PathLike, info: dict[str, Any]) -> None:
    """A part that a checkpoint lacks would be initialised at random: refuse it by name."""
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("language_model."))
    wrong = [f"{key} is {tuple(found)}, not {tuple(wanted)}" for key, found, wanted in info["mismatched_keys"]]
    if missing or wrong:
        names = wrong + [f"{key} is missing" for key in missing]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(
            f"The checkpoint {os.fspath(place)!r} does not fit its configuration: {'; '.join(names[:5])}{more}. It is "
            "truncated, or config.json belongs to another checkpoint."
        )


STUB = '''"""Lets ``trust_remote_code=True`` find the classes of the installed package freeze-omni-hf."""

from freeze_omni_hf import (  # noqa: F401
    FreezeOmniConfig,
    FreezeOmniFeatureExtractor,
    FreezeOmniForConditionalGeneration,
    FreezeOmniProcessor,
    SpeechToSpeechPipeline,
)
'''


def write_remote_code_stub(folder: str | os.PathLike) -> None:
    """Add the stub module and its ``auto_map`` to a saved checkpoint."""
    folder = Path(folder)
    module = "freeze_omni_stub"
    (folder / f"{module}.py").write_text(STUB)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["auto_map"] = {
        "AutoConfig": f"{module}.FreezeOmniConfig",
        "AutoModel": f"{module}.FreezeOmniForConditionalGeneration",
        "AutoModelForMultimodalLM": f"{module}.FreezeOmniForConditionalGeneration",
        "AutoProcessor": f"{module}.FreezeOmniProcessor",
        "AutoFeatureExtractor": f"{module}.FreezeOmniFeatureExtractor",
    }
    config["custom_pipelines"] = {
        "speech-to-speech": {"impl": f"{module}.SpeechToSpeechPipeline", "pt": ["AutoModel"], "type": "multimodal"}
    }
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


__all__ = ["load_config", "refuse_incomplete", "write_remote_code_stub"]
