# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Error rates and answers."""

import pytest

from freeze_omni_hf.evaluation import contains_answer, error_rates, normalise


def test_error_rates_count_words():
    rates = error_rates(["the cat sat", "hello"], ["The cat, sat down.", "Hello!"])
    assert (rates["words"], rates["deletions"], rates["substitutions"], rates["insertions"]) == (5, 1, 0, 0)
    assert rates["wer"] == pytest.approx(1 / 5)
    assert error_rates(["twenty one cats"], ["21 cats"])["wer"] == 0
    assert error_rates(["", "b"], ["a", "b"])["wer"] == 0.5
    with pytest.raises(ValueError, match="1 predictions .* 2"):
        error_rates(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="No reference"):
        error_rates(["a"], ["[noise]"])


def test_answers_are_whole_words():
    assert contains_answer("The capital is Paris.", ["paris"])
    assert not contains_answer("Comparison", ["paris"])
    assert contains_answer("There are 7 days.", ["seven", "7"]) and contains_answer("seven", ["7"])
    assert not contains_answer("", ["x"]) and not contains_answer("x", [])
    assert normalise("It's FINE, really!") == "it is fine really"
