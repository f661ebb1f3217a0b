# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Access to the reference data.

The tests read every size and setting from the data themselves, so another reference set of the same
layout can be checked with ``FREEZE_OMNI_GOLDEN=/path/to/set make test``.
"""

import json
import os
from functools import cache
from pathlib import Path

from safetensors.torch import load_file


GOLDEN = Path(os.environ.get("FREEZE_OMNI_GOLDEN", Path(__file__).parent / "golden"))
CHECKPOINTS = GOLDEN / "checkpoints"
LLM = GOLDEN / "llm"


@cache
def tensors(name: str = "golden") -> dict:
    """All tensors of ``golden.safetensors`` (or ``golden_server.safetensors``)."""
    return load_file(GOLDEN / f"{name}.safetensors")


@cache
def facts(name: str = "golden") -> dict:
    """The ids, texts and settings of ``golden.json`` (or ``golden_server.json``)."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


def prefixed(prefix: str, name: str = "golden") -> dict:
    """The tensors whose name starts with ``prefix``, without it."""
    return {key[len(prefix) :]: value for key, value in tensors(name).items() if key.startswith(prefix)}
