# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The page: its handlers, called as Gradio calls them, and its files for the Hub."""

import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import app
import numpy as np
import pytest
import soundfile
import texts
import yaml
from engine import Settings, Turn


SPACE = Path(app.__file__).parent
VISITOR = SimpleNamespace(session_hash="visitor")


class Page:
    """Components by id and handlers by name of a built page."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.components = {item.elem_id: item for item in blocks.blocks.values() if getattr(item, "elem_id", None)}
        self.handlers = {function.fn.__name__: function for function in blocks.fns.values() if function.fn}

    def __getitem__(self, elem_id):
        return self.components[f"fo-{elem_id}"]

    def call(self, name, *args):
        return self.handlers[name].fn(*args)

    def ask(self, question, turns, choice, settings):
        """Updates of one question, as lists by component id ("state" for the conversation)."""
        begun = self.call("begin", VISITOR, question, turns, choice)
        pending = next(value for key, value in begun.items() if isinstance(value, tuple) or value is None)
        values = [getattr(settings, name) for name in settings.__dataclass_fields__]
        updates = list(self.call("answer", VISITOR, pending, turns, choice, *values))
        return begun, [{key.elem_id or "state": value for key, value in step.items()} for step in updates]


@pytest.fixture(scope="module")
def page(engine, checkpoint):
    return Page(app.create_app(engine, str(checkpoint), streaming=True))


@pytest.fixture
def choice(checkpoint):
    return (str(checkpoint), "")


def test_conversation_of_two_turns(page, engine, checkpoint, choice, question):
    settings = engine.load(*choice).settings
    turns: list[Turn] = []
    for number in (1, 2):
        begun, updates = page.ask(question, turns, choice, settings)
        assert begun[page["chat"]][-1] == {"role": "user", "content": {"path": question}}
        chunks = [step["fo-player"] for step in updates if "fo-player" in step]
        turns = updates[-1]["state"]
        assert len(turns) == number and turns[-1].text
        spoken = np.concatenate([soundfile.read(io.BytesIO(chunk), dtype="int16")[0] for chunk in chunks])
        whole, rate = soundfile.read(turns[-1].sound, dtype="int16")
        assert rate == 24000 and np.array_equal(spoken, whole)
        assert "Speech decoder" in updates[-1]["fo-times"] and "Real-time factor" in updates[-1]["fo-times"]
        roles = [message["role"] for message in updates[-1]["fo-chat"]]
        assert roles == ["user", "assistant", "assistant"] * number


def test_without_ffmpeg_the_sound_comes_at_the_end(engine, choice, question, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    page = Page(app.create_app(engine, *choice))
    assert not page["player"].streaming
    _, updates = page.ask(question, [], choice, engine.load(*choice).settings)
    assert ["fo-player" in step for step in updates] == [False] * (len(updates) - 1) + [True]
    assert updates[-1]["fo-player"] == updates[-1]["state"][0].sound


@pytest.mark.parametrize("case", ["nothing", "silence", "no model"])
def test_refused_questions_show_a_notice(page, choice, question, write, case):
    path = {"nothing": None, "silence": write(np.zeros(16000)), "no model": question}[case]
    begun, updates = page.ask(path, [], None if case == "no model" else choice, Settings())
    words = {"nothing": texts.NO_AUDIO, "silence": texts.SILENCE, "no model": texts.NO_MODEL}[case]
    notice = begun[page["notice"]]
    assert notice.visible and texts.banner(words) == notice.value
    assert [set(step) for step in updates] == [{"fo-chat"}]


def test_failed_answer_keeps_the_conversation_and_the_place(page, engine, choice, question):
    turns = [Turn("/nowhere/old.wav", text="Yes.")]
    for _ in range(2):  # the place in the line is given back
        _, updates = page.ask(question, turns, choice, engine.load(*choice).settings)
        assert texts.banner(texts.GONE) == updates[-1]["fo-notice"].value
        assert "state" not in updates[-1]


def test_stop_keeps_what_was_said(page, engine, choice, question):
    begun = page.call("begin", VISITOR, question, [], choice)
    pending = next(value for value in begun.values() if isinstance(value, tuple))
    values = [getattr(engine.load(*choice).settings, name) for name in Settings.__dataclass_fields__]
    steps = page.call("answer", VISITOR, pending, [], choice, *values)
    next(steps)
    page.call("stop_answer", VISITOR)
    turns = [value for key, value in list(steps)[-1].items() if not key.elem_id][0]
    assert turns[0].note == texts.STOPPED and texts.STOPPED in str(app.as_chat(turns))
    assert texts.STOPPED not in turns[0].text


def test_starting_over_forgets_a_running_answer(page, engine, choice, question):
    begun = page.call("begin", VISITOR, question, [], choice)
    pending = next(value for value in begun.values() if isinstance(value, tuple))
    values = [getattr(engine.load(*choice).settings, name) for name in Settings.__dataclass_fields__]
    steps = page.call("answer", VISITOR, pending, [], choice, *values)
    next(steps)
    assert page.call("restart", VISITOR)[:2] == ([], [])
    assert all(key.elem_id == "fo-chat" and len(step) == 1 for step in steps for key in step)


def test_wrong_model_keeps_the_old_one(page, choice):
    *_, update = page.call("change_model", "/nowhere", "", choice)
    assert set(update) == {page["status"]}
    assert "no such folder" in update[page["status"]] and "still in use" in update[page["status"]]
    *_, update = page.call("change_model", *choice, None)
    assert choice in update.values() and "In use" in update[page["status"]]


def test_page_starts_without_a_model(engine):
    page = Page(app.create_app(engine, "/nowhere"))
    assert "no such folder" in page["banner"].value and page["banner"].visible


def test_answers_borrow_a_gpu_on_zerogpu(monkeypatch):
    durations = []
    decorate = lambda duration: durations.append(duration) or (lambda function: function)  # noqa: E731
    monkeypatch.setattr(app, "spaces", SimpleNamespace(GPU=decorate))
    assert list(app._on_gpu(range)(3)) == [0, 1, 2] and durations == [app.GPU_SECONDS]
    monkeypatch.setattr(app, "spaces", None)
    assert list(app._on_gpu(range)(2)) == [0, 1] and len(durations) == 1


def test_table_of_times():
    times = {"features": 0.01, "text": 0.99, "codec": 1.0, "first_text": 0.2, "first_sound": 0.5, "other": 9.0}
    table = texts.timing_table(times, 4.0)
    assert "990 ms" in table and "width:49.5%" in table
    assert "210 ms" in table and "510 ms" in table  # from the question's end on, features included
    assert ">0.50<" in table and "2.0 s for 4.0 s" in table
    assert "Real-time factor" not in texts.timing_table(times, 0.0)
    assert texts.NO_TIMES in texts.timing_table({}, 0.0)


def test_files_for_the_hub():
    front = yaml.safe_load((SPACE / "README.md").read_text().split("---\n")[1])
    assert front["sdk"] == "gradio" and front["app_file"] == "app.py" and front["license"] == "apache-2.0"
    assert len(front["short_description"]) <= 60
    assert (SPACE / "requirements.txt").read_text().startswith("freeze-omni-hf[demo]")
    assert (SPACE / "packages.txt").read_text().split() == ["ffmpeg"]
