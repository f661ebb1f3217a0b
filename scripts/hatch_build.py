# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Build hook: puts the embedded checkpoint into the wheel as package data.

An editable install reads it from the checkout instead, and a checkout without it still builds.
"""

from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


CHECKPOINT = "checkpoints/freeze-omni-smollm2-135m"


class EmbeddedCheckpointHook(BuildHookInterface):
    """Maps ``checkpoints/<name>`` to ``freeze_omni_hf/checkpoints/<name>``."""

    def initialize(self, version: str, build_data: dict) -> None:
        folder = Path(self.root) / CHECKPOINT
        if version == "standard" and folder.is_dir():
            build_data["force_include"][str(folder)] = f"freeze_omni_hf/{CHECKPOINT}"
