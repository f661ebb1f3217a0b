# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Settings of every test: no network, no telemetry, plots without a display."""

import os


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Folder of the default LLM in the user's cache."""
    from freeze_omni_hf.llm_store import DEFAULT_LLM, cached_llm

    folder = cached_llm(DEFAULT_LLM)
    if folder is None:
        pytest.skip("the default LLM is not in the cache; `make setup` puts it there")
    return folder
