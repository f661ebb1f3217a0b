# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Nothing that is held out is heard in training: checked on the real recipe, table and split code."""

import itertools
from pathlib import Path

import pytest
import yaml
from sine_recipe import ROOT, load_script, sentences, write_recipe

from freeze_omni_hf.evaluation import contains_answer
from freeze_omni_hf.training.plan import PlanError, Recipe, check_held_out
from freeze_omni_hf.training.texts import (
    WORDNET_FOLDER,
    clean_sentence,
    load_questions,
    normalise,
    number_words,
    select_questions,
    split_sentences,
    wordnet_definitions,
    wordnet_sentences,
)


RECIPE = ROOT / "training" / "data" / "embedded.yaml"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The embedded recipe; without WordNet its sentences are made up, the split is the same code."""
    if (WORDNET_FOLDER / "data.noun").is_file():
        return Recipe(RECIPE)
    names, definitions = [f"name {index}" for index in range(2000)], [f"The use of {n}." for n in range(500)]
    return Recipe(RECIPE, sentences(30_000), names, definitions)


@pytest.fixture(scope="module")
def rows(recipe):
    made = {}
    for group in recipe.groups:
        for shard in recipe.shards(group):
            made.setdefault("train" if shard.split == "train" else "held out", []).extend(shard.rows)
    return made


def test_recipe_keeps_its_own_rules(recipe):
    counts = check_held_out(recipe)
    assert counts["voices"] >= 8 and counts["sentences"] == 600 and counts["facts"] > 150


def test_no_voice_text_or_fact_of_a_test_row_is_in_training(recipe, rows):
    train, held = rows["train"], rows["held out"]
    # The model's own voice says everything; what is held out are the voices that it hears.
    heard = {row.speaker for row in train if not row.id.startswith("speech-")}
    assert not heard & {row.speaker for row in held}
    assert not {normalise(row.text) for row in train} & {normalise(row.text) for row in held}
    facts = {normalise(question.text): question.fact for question in recipe.questions}
    assert not {facts.get(normalise(r.text)) for r in train} & {facts.get(normalise(r.text)) for r in held} - {None}
    assert len({row.id for row in train + held}) == len(train) + len(held)


def test_a_definition_that_is_a_held_out_text_is_left_out(tmp_path):
    settings = yaml.safe_load(write_recipe(tmp_path).read_text())
    group = {"task": "asr", "split": "train", "name": "low", "texts": "definitions", "rows": None}
    file = write_recipe(tmp_path, groups=[*settings["groups"], group])
    given = sentences()
    held = Recipe(file, given).sentences["test"][0]
    recipe = Recipe(file, given, definitions=["A small dog.", held.upper(), "Something green."])
    assert recipe.definitions == ["A small dog.", "Something green."]
    (shard,) = recipe.shards(group)
    assert {row.text for row in shard.rows} == set(recipe.definitions)
    assert Recipe(write_recipe(tmp_path), given).definitions == []


def test_definitions_of_wordnet():
    if not (WORDNET_FOLDER / "data.noun").is_file():
        pytest.skip("WordNet is not installed")
    found = wordnet_definitions()
    assert len(found) > 40_000 and not any(mark in text for text in found for mark in '();"')
    assert len({normalise(text) for text in found}) == len(found)


def test_a_name_that_is_a_held_out_text_is_left_out(tmp_path):
    settings = yaml.safe_load(write_recipe(tmp_path).read_text())
    group = {"task": "asr", "split": "train", "name": "low", "texts": "names", "rows": None}
    file = write_recipe(tmp_path, groups=[*settings["groups"], group])
    names = [f"Town{index}" for index in range(40)] + ["violin", "Mozambique"]
    recipe = Recipe(file, sentences(), names)
    assert len(recipe.names) > 10 and any("violin" in text for text in recipe.names)
    said = " ".join(recipe.names)
    assert all(said.count(f"{name} ") + said.count(f"{name}.") + said.count(f"{name},") + said.count(f"{name}?") <= 1
               for name in names)  # fmt: skip
    held = Recipe(file, [*sentences(), *recipe.names], names)
    lost = set(recipe.names) - set(held.names)
    assert lost == {text for split in ("dev", "test") for text in held.sentences[split]} & set(recipe.names)
    assert check_held_out(held)
    group["split"] = "test"
    with pytest.raises(PlanError, match="for training"):
        Recipe(file, sentences(), names).shards({**group, "name": "high"})


def test_both_programs_with_the_voice_of_one_person_are_held_out(rows):
    assert {"flite/slt", "festival/slt_hts"} <= {row.speaker for row in rows["held out"]}


def test_statements_do_not_tell_held_out_facts(recipe):
    held = [q for q in recipe.questions if q.split != "train" and q.fact.startswith("capital|")]
    assert held
    spoken = {normalise(text) for text in recipe.sentences["train"]}
    for question in held:
        _, one, other = question.fact.split("|")
        statements = (f"the capital of {one} is {other}", f"the capital of {other} is {one}")
        assert not spoken & set(statements), question.fact


def test_amounts(recipe):
    train = select_questions(recipe.questions, "train")
    test = select_questions(recipe.questions, "test")
    assert len(train) >= 3000 and len(test) >= 280 and len(select_questions(recipe.questions, "dev")) >= 200
    assert all(question.answers for question in test)
    # A limited test set asks about as many facts as it can.
    assert len({q.fact for q in test[:280]}) == len({q.fact for q in test})


def test_two_facts_with_one_question_count_as_one(tmp_path):
    table = tmp_path / "facts.yaml"
    table.write_text(
        "relations: {opposite: {templates: ['Opposite of {x}?'], inverse: ['Opposite of {y}?'],"
        " facts: {loud: quiet, noisy: quiet, hot: cold}}}"
    )
    questions = {q.text: q for q in load_questions(table) if q.fact.startswith("opposite")}
    assert len(questions) == 5
    assert questions["Opposite of quiet?"].answers == ["loud", "noisy"]
    assert len({questions[f"Opposite of {word}?"].fact for word in ("loud", "noisy", "quiet")}) == 1
    assert len({question.fact for question in questions.values()}) == 2


def test_split_does_not_depend_on_order_or_on_what_is_added():
    some, more = sentences(300), sentences(400)
    counts = {"dev": 1000, "test": 1000}
    first, second = split_sentences(some, counts, 0.1, 3), split_sentences(reversed(more), counts, 0.1, 3)
    for split in ("train", "dev", "test"):
        assert set(first[split]) == set(second[split]) & set(some)
    assert 10 < len(first["test"]) < 60
    for one, other in itertools.combinations(first.values(), 2):
        assert not set(one) & set(other)


@pytest.mark.parametrize(
    ("voices", "message"),
    [
        ({"train": {"low": {"sine/a": 1}}, "test": {"high": {"sine/a": 1}}}, "voice 'sine/a'"),
        ({"train": {"low": {"flite/slt": 1}}, "test": {"high": {"festival/slt_hts": 1}}}, "are one speaker"),
    ],
)
def test_a_recipe_that_leaks_is_refused(tmp_path, capsys, script, voices, message):
    file = write_recipe(tmp_path, voices=voices, groups=[])
    with pytest.raises(PlanError, match=message):
        check_held_out(Recipe(file, sentences()))
    assert script.main(["--recipe", str(file), "--output", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err


def test_plan_is_the_same_twice_and_covers_every_sentence(recipe):
    again = Recipe(RECIPE, sentences=recipe._given_sentences)
    for group in recipe.groups:
        assert [s.fingerprint for s in recipe.shards(group)] == [s.fingerprint for s in again.shards(group)]
    flite = next(g for g in recipe.groups if (g.get("split"), g.get("name"), g["task"]) == ("train", "flite", "asr"))
    spoken = {row.text for shard in recipe.shards(flite) for row in shard.rows}
    assert spoken == set(recipe.sentences["train"])


def test_nodes_share_all_shards(tmp_path, script):
    file = write_recipe(tmp_path)
    keys = []
    for index in range(3):
        options = script.parse_arguments(
            ["--recipe", str(file), "--output", str(tmp_path), "--num-shards", "3", "--shard-index", str(index)]
        )
        keys.append({shard.key for _, mine in script.Job(options).groups for shard in mine})
    assert sum(map(len, keys)) == len(set.union(*keys)) == 7
    assert min(map(len, keys)) == 2


def test_wordnet_is_found_or_named(tmp_path):
    with pytest.raises(ValueError, match="apt-get install wordnet-base"):
        wordnet_sentences(tmp_path)
    (tmp_path / "data.noun").write_text(
        '1 03 n | an entity; "it was full of rackets, balls and other objects"; "in 1999 he left"; "too short"\n'
    )
    for part in ("verb", "adj", "adv"):
        (tmp_path / f"data.{part}").write_text("")
    assert wordnet_sentences(tmp_path) == ["It was full of rackets, balls and other objects."]


def test_words():
    assert clean_sentence("he saw the U.S. flag there") is None
    assert clean_sentence("we are late; they waited an hour") == "We are late, they waited an hour."
    assert number_words(0) == "zero" and number_words(342) == "three hundred forty two"
    assert number_words(17_005) == "seventeen thousand five"
    with pytest.raises(ValueError, match="1000000"):
        number_words(1_000_000)
    assert contains_answer("It is Paris, of course.", ["paris"]) and not contains_answer("Parisian", ["Paris"])


def test_script_names_the_real_recipe():
    assert Path(load_script().RECIPE) == RECIPE
