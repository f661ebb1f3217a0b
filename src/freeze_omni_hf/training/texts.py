# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What the voices say: sentences of a dictionary, questions over curated facts, and how both are split.

Every split is a function of a text's or a fact's hash. So it does not depend on the order of files, on the number of
nodes, or on what is added later: what was held out once stays held out.
"""

import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml


WORDNET_FOLDER = Path("/usr/share/wordnet")
WORDNET_HINT = "Install it with `apt-get install wordnet-base`, or name its folder with WNSEARCHDIR."
SPLITS = ("train", "dev", "test")

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


class TextError(ValueError):
    """Texts that are missing or cannot be understood. The message names the file and the cure."""


@dataclass
class Question:
    """One question in one phrasing.

    Attributes:
        text: As it is spoken and as the LLM reads it.
        fact: Name of the fact it is about; all phrasings of a fact go to the same split.
        answers: Accepted answers, or empty where there is no right answer.
        split: "train", "dev" or "test".
    """

    text: str
    fact: str
    answers: list[str] = field(default_factory=list)
    split: str = "train"


def normalise(text: str) -> str:
    """Lower case, letters and digits only, single spaces: what two texts are compared by."""
    return " ".join(re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower().replace("’", "'")))


def bucket(key: str, seed: int = 0) -> float:
    """A number in [0, 1) that depends on ``key`` and ``seed`` alone."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(key: str, dev: float, test: float, seed: int = 0) -> str:
    """The split of ``key``: the lowest ``test`` of all hashes are test, the next ``dev`` are dev."""
    place = bucket(key, seed)
    return "test" if place < test else "dev" if place < test + dev else "train"


def number_words(number: int) -> str:
    """0 to 999,999 in words, as they are spoken.

    Raises:
        ValueError: another number.
    """
    if not 0 <= number < 1_000_000:
        raise ValueError(f"{number} is not between 0 and 999,999.")
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f" {ONES[number % 10]}" if number % 10 else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    rest = number % size
    return f"{number_words(number // size)} {name}" + (f" {number_words(rest)}" if rest else "")


# Sentences --------------------------------------------------------------------------------------------------------


def wordnet_sentences(folder: str | Path | None = None, words: tuple[int, int] = (4, 14)) -> list[str]:
    """Example sentences of WordNet: cleaned, without duplicates, in a fixed order.

    A sentence starts with a capital and ends with a stop. Those with figures, abbreviations, capitals throughout or
    brackets are left out, because it is not certain how a voice reads them.

    Args:
        folder: Folder of ``data.noun`` and its like; None: ``WNSEARCHDIR``, or where Debian puts them.
        words: Fewest and most words.

    Raises:
        TextError: the files are not there.
    """
    return _clean(words, (text for gloss in _glosses(folder) for text in re.findall(r'"([^"]+)"', gloss)))


def wordnet_definitions(folder: str | Path | None = None, words: tuple[int, int] = (4, 12)) -> list[str]:
    """Definitions of WordNet, cleaned as `wordnet_sentences` are: three times as many, with words that those lack.

    Raises:
        TextError: the files are not there.
    """
    plain = (re.sub(r'"[^"]*"|\([^)]*\)', "", gloss) for gloss in _glosses(folder))
    return _clean(words, (text for gloss in plain for text in gloss.split(";")))


def _glosses(folder: str | Path | None) -> Iterator[str]:
    """What stands behind the entries of WordNet's files: definitions, and examples in quotation marks."""
    import os

    folder = Path(folder or os.environ.get("WNSEARCHDIR") or WORDNET_FOLDER)
    for part in ("noun", "verb", "adj", "adv"):
        file = folder / f"data.{part}"
        if not file.is_file():
            raise TextError(f"WordNet's {file} is not there. {WORDNET_HINT}")
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            yield line.partition(" | ")[2]


def _clean(words: tuple[int, int], texts: Iterable[str]) -> list[str]:
    found: dict[str, str] = {}
    for text in texts:
        sentence = clean_sentence(text, words)
        if sentence:
            found.setdefault(normalise(sentence), sentence)
    return [found[key] for key in sorted(found)]


def clean_sentence(text: str, words: tuple[int, int] = (4, 14)) -> str | None:
    """``text`` as a sentence with a capital and a stop, or None where it cannot be read aloud with certainty."""
    text = re.sub(r"\s+", " ", text.replace("`", "'").replace("--", ", ").replace(" ,", ",")).strip(" ;,-'")
    text = text.rstrip(":")
    if not re.fullmatch(r"[A-Za-z][A-Za-z ,';:.\-]*[A-Za-z][.!?]?'?", text):
        return None
    text = text.replace(";", ",").replace(":", ",")
    spoken = text.rstrip(".!?'").split()
    abbreviated = any(re.search(r"\.|^[A-Z]{2,}|[A-Z].*[A-Z]", word) for word in spoken)
    if not words[0] <= len(spoken) <= words[1] or abbreviated or re.search(r"(^|\s)[-']|[-'](\s|$)", text):
        return None
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."


NAME_FRAMES = (
    "Tell me about {0}.",
    "What do you know about {0} and {1}?",
    "Is {0} the same as {1}?",
    "I would like to hear more about {0}, {1} and {2}.",
    "We talked about {0} and about {1}.",
    "{0}, {1} and {2} are on the list.",
    "Have you heard of {0} before?",
    "He asked her about {0}, and she told him about {1}.",
)


def wordnet_names(folder: str | Path | None = None) -> list[str]:
    """Proper nouns of WordNet, and its nouns that were counted in running text: one or two plain words, sorted.

    Latin names of animals and plants are left out.

    Raises:
        TextError: the files are not there.
    """
    import os

    folder = Path(folder or os.environ.get("WNSEARCHDIR") or WORDNET_FOLDER)
    lines = {}
    for part in ("index.noun", "data.noun"):
        if not (folder / part).is_file():
            raise TextError(f"WordNet's {folder / part} is not there. {WORDNET_HINT}")
        text = (folder / part).read_text(encoding="utf-8", errors="replace")
        lines[part] = [line.split() for line in text.splitlines() if not line.startswith(" ")]
    # An index line ends with the count of senses that were tagged in texts, then the places of all senses.
    counted = {line[0] for line in lines["index.noun"] if int(line[-1 - int(line[2])]) > 0}
    names = set()
    for line in lines["data.noun"]:
        for word in line[4 : 4 + 2 * int(line[3], 16) : 2]:
            # The lexicographer files 05 and 20 hold animals and plants.
            proper = line[1] not in ("05", "20") and re.fullmatch(r"[A-Z][a-z]+(_[A-Z]?[a-z]+)?", word)
            common = word in counted and re.fullmatch(r"[a-z]{3,}(_[a-z]{2,})?", word)
            if proper or common:
                names.add(word.replace("_", " "))
    return sorted(names)


def name_sentences(names: Iterable[str], seed: int = 0) -> list[str]:
    """Sentences in which every one of ``names`` is said once: a wide vocabulary in few minutes of speech."""
    rng = random.Random(seed)
    left, sentences = sorted(names), []
    rng.shuffle(left)
    while left:
        frame = rng.choice(NAME_FRAMES)
        places = 1 + max(int(place) for place in re.findall(r"{(\d)}", frame))
        taken, left = left[:places], left[places:]
        if len(taken) == places:
            text = frame.format(*taken)
            sentences.append(text[0].upper() + text[1:])
    return sentences


def split_sentences(
    sentences: Iterable[str], counts: dict[str, int], share: float = 0.02, seed: int = 0
) -> dict[str, list[str]]:
    """Sentences by split; ``share`` of all hashes is kept out of training for dev and again for test.

    Args:
        sentences: Any order, duplicates allowed.
        counts: Most sentences in "dev" and "test".
        share: Share of the hashes reserved for each of them.
        seed: Another seed gives another split.

    Returns:
        {"train": [...], "dev": [...], "test": [...]}, each in the order of its hashes.
    """
    splits = {name: [] for name in SPLITS}
    unique = {normalise(sentence): sentence for sentence in sentences}
    for key in sorted(unique, key=lambda key: (bucket(key, seed + 1), key)):
        splits[split_of(key, share, share, seed)].append(unique[key])
    return {name: rows[: counts.get(name)] for name, rows in splits.items()}


# Questions --------------------------------------------------------------------------------------------------------


def load_questions(file: str | Path, seed: int = 0, dev: float = 0.08, test: float = 0.12) -> list[Question]:
    """All questions of a fact table, each with its split; the order is that of their hashes.

    Two facts that lead to the same question (with case and punctuation left aside) count as one fact, with the answers
    of both, so that no question of a held-out fact can be heard in training under another name.

    Raises:
        TextError: the file is not there, is no YAML, or a relation lacks templates or facts.
    """
    table = read_table(file)
    questions = [*_relation_questions(table, file), *_arithmetic_questions()]
    questions += [Question(text, f"chat|{normalise(text)}") for text in table.get("chat", ())]
    merged: dict[str, Question] = {}
    parents: dict[str, str] = {}

    def root(fact: str) -> str:
        while parents.setdefault(fact, fact) != fact:
            fact = parents[fact]
        return fact

    for question in questions:
        first = merged.setdefault(normalise(question.text), question)
        if first is not question:
            first.answers += [answer for answer in question.answers if answer not in first.answers]
        one, other = sorted((root(first.fact), root(question.fact)))
        parents[other] = one
    for question in merged.values():
        question.fact = root(question.fact)
        question.split = split_of(question.fact, dev, test, seed)
    return [merged[key] for key in sorted(merged, key=lambda key: (bucket(key, seed + 1), key))]


def select_questions(questions: Iterable[Question], split: str, limit: int | None = None) -> list[Question]:
    """Questions of one split; dev and test hold only those with accepted answers, one phrasing after the other.

    The first phrasing of every fact comes before the second of any, so that a limited set is about many facts.
    """
    chosen = [question for question in questions if question.split == split]
    if split == "train":
        return chosen[:limit]
    turns: dict[str, int] = {}
    ranked = []
    for question in chosen:
        if question.answers:
            turns[question.fact] = turns.get(question.fact, 0) + 1
            ranked.append((turns[question.fact], question))
    return [question for _, question in sorted(ranked, key=lambda pair: pair[0])][:limit]


@cache
def _read(file: Path) -> dict:
    try:
        table = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise TextError(f"The fact table {file} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise TextError(f"The fact table {file} is not valid YAML: {error}") from error
    if not isinstance(table, dict) or not isinstance(table.get("relations"), dict):
        raise TextError(f"The fact table {file} has no mapping `relations`.")
    return table


def read_table(file: str | Path) -> dict:
    """The fact table as it stands in its YAML file."""
    return _read(Path(file))


def _facts(relation: dict) -> Iterator[tuple[str, list[str]]]:
    for key in relation.get("items", ()):
        yield str(key), []
    for key, value in relation.get("facts", {}).items():
        yield str(key), [str(answer) for answer in (value if isinstance(value, list) else [value])]


def _fill(template: str, x: str, answers: list[str]) -> str:
    article = f"{'an' if x[0].lower() in 'aeiou' and not x.startswith(('university', 'unicorn')) else 'a'} {x}"
    text = template.replace("{a}", article).replace("{A}", article.capitalize())
    text = text.replace("{x}", x).replace("{y}", answers[0] if answers else "")
    return text[0].upper() + text[1:]


def with_figures(answers: Iterable[str]) -> list[str]:
    """``answers``, and for those that are small numbers the other way to write them ("seven" and "7")."""
    figures = {word: str(number) for number, word in enumerate(ONES)}
    words = {figure: word for word, figure in figures.items()}
    both = []
    for answer in answers:
        both += [answer, *(table[answer] for table in (figures, words) if answer in table)]
    return list(dict.fromkeys(both))


def _relation_questions(table: dict, file: str | Path) -> Iterator[Question]:
    for name, relation in table["relations"].items():
        if not relation.get("templates") or not (relation.get("facts") or relation.get("items")):
            raise TextError(f"The relation {name} in {file} lacks `templates`, or `facts` and `items`.")
        for x, answers in _facts(relation):
            fact = fact_name(name, x, answers)
            for template in relation["templates"]:
                yield Question(_fill(template, x, answers), fact, with_figures(answers))
            for template in relation.get("inverse", ()):
                yield Question(_fill(template, x, answers), fact, with_figures([x.removeprefix("the ")]))


def fact_name(relation: str, x: str, answers: list[str]) -> str:
    """What a fact is called: its relation and both its sides in a fixed order."""
    return "|".join([relation, *sorted(normalise(side) for side in (x, *answers[:1]))])


def _arithmetic_questions() -> Iterator[Question]:
    forms = {
        "plus": ("What is {} plus {}?", "How much is {} plus {}?", "Tell me what {} plus {} is."),
        "minus": ("What is {} minus {}?", "How much is {} minus {}?"),
        "times": ("What is {} times {}?", "How much is {} times {}?"),
    }
    for a in range(1, 11):
        for b in range(1, 11):
            for sign, result in (("plus", a + b), ("minus", a - b), ("times", a * b)):
                if result < 0 or (sign == "times" and a * b > 50):
                    continue
                pair = f"{a}|{b}" if sign == "minus" else f"{min(a, b)}|{max(a, b)}"
                answers = list(
                    dict.fromkeys([str(result), number_words(result), number_words(result).replace(" ", "-")])
                )
                for form in forms[sign]:
                    text = form.format(number_words(a), number_words(b))
                    yield Question(text, f"{sign}|{pair}", answers)


# Sentences from the same table ------------------------------------------------------------------------------------


def table_sentences(file: str | Path, count: int, seed: int = 0, dev: float = 0.08, test: float = 0.12) -> list[str]:
    """Statements of training facts, and sentences with numbers, dates, names and times; for recognition only.

    Args:
        file: The fact table.
        count: How many sentences are made of the templates in ``spoken_forms``.
        seed, dev, test: As for `load_questions`; statements of held-out facts are left out.
    """
    table = read_table(file)
    train = {question.fact for question in load_questions(file, seed, dev, test) if question.split == "train"}
    sentences = []
    for name, relation in table["relations"].items():
        for x, answers in _facts(relation):
            if fact_name(name, x, answers) in train:
                sentences += [_fill(template, x, answers) for template in relation.get("statements", ())]
    forms = table.get("spoken_forms", {"templates": ()})
    rng = random.Random(f"{seed}/spoken forms")
    for number in range(count if forms["templates"] else 0):
        template = forms["templates"][number % len(forms["templates"])]
        text = re.sub(r"\{(\w+)\}", lambda match: _spoken(match.group(1), forms, rng), template)
        sentences.append(text[0].upper() + text[1:])
    return list({normalise(sentence): sentence for sentence in sentences}.values())


def _spoken(kind: str, forms: dict, rng: random.Random) -> str:
    if kind == "number":
        return number_words(rng.choice((rng.randrange(100), rng.randrange(1000), rng.randrange(0, 100_000, 100))))
    if kind == "digits":
        return " ".join(rng.choice(ONES[:10]) for _ in range(rng.randint(3, 6)))
    if kind == "ordinal":
        return rng.choice((*ORDINALS, *(f"twenty {word}" for word in ORDINALS[:9]), "thirtieth", "thirty first"))
    if kind == "tens":
        return number_words(rng.randrange(20, 100))
    if kind == "year":
        return rng.choice(("eighteen", "nineteen", "twenty")) + " " + number_words(rng.randrange(10, 100))
    if kind == "time":
        hour = ONES[rng.randint(1, 12)]
        return rng.choice((f"{hour} o'clock", f"half past {hour}", f"quarter to {hour}", f"{hour} thirty"))
    lists = {"name": forms["names"], "city": forms["cities"], "month": MONTHS, "weekday": WEEKDAYS}
    if kind not in lists:
        raise TextError(f"A template in `spoken_forms` asks for {{{kind}}}; known are {sorted(lists)} and numbers.")
    return rng.choice(lists[kind])


__all__ = [
    "Question",
    "SPLITS",
    "TextError",
    "bucket",
    "clean_sentence",
    "load_questions",
    "normalise",
    "number_words",
    "read_table",
    "select_questions",
    "split_of",
    "split_sentences",
    "table_sentences",
    "wordnet_definitions",
    "wordnet_names",
    "wordnet_sentences",
]
