# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Fixtures of the data tests: a synthesizer that costs nothing, and the script with sentences of its own."""

import pytest

from freeze_omni_hf.training import voices


@pytest.fixture
def sine(monkeypatch):
    from sine_recipe import Sine

    monkeypatch.setitem(voices.SYNTHESIZERS, "sine", Sine)
    Sine.spoken = []
    return Sine


@pytest.fixture
def script(monkeypatch, sine):
    """The script, with sentences of its own instead of WordNet's."""
    from sine_recipe import load_script, sentences

    module = load_script()
    monkeypatch.setattr("freeze_omni_hf.training.plan.wordnet_sentences", sentences)
    return module
