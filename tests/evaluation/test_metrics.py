# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Error rates and answers."""

import pytest

from freeze_omni_hf.evaluation import answer_accuracy, contains_answer, error_rates, module_path, normalise


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


def test_accuracy_and_what_hearing_costs():
    accepted = [["paris"], ["7", "seven"], ["blue"]]
    found = answer_accuracy(["Paris!", "six", "red"], accepted, ["Paris", "seven", "red"])
    assert found == {"spoken": pytest.approx(1 / 3), "text": pytest.approx(2 / 3), "ratio": 0.5}
    assert answer_accuracy(["Paris!"], accepted[:1]) == {"spoken": 1.0}
    assert answer_accuracy(["Paris!"], accepted[:1], ["Rome"])["ratio"] is None
    with pytest.raises(ValueError, match="2 answers to 3"):
        answer_accuracy(["a", "b"], accepted)


def test_evaluate_modules_load_without_a_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import evaluate

    wer = evaluate.load(module_path("speech_wer"))
    assert wer.compute(predictions=["the cat sat"], references=["The cat, sat down."])["wer"] == 0.25
    accuracy = evaluate.load(module_path("spoken_qa"))
    accuracy.add_batch(predictions=["Paris!", "six"], references=[["paris"], ["7", "seven"]])
    assert accuracy.compute(text_predictions=["Paris", "seven"])["ratio"] == 0.5
    with pytest.raises(ValueError, match="speech_wer, spoken_qa"):
        module_path("bleu")
