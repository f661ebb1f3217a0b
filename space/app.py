# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The Gradio Space: ask a question aloud, read the answer as it is written and hear it as it is spoken.

Run as: python space/app.py [--model FOLDER_OR_ID] [--llm FOLDER_OR_ID] [--port 7860] [--share]
"""

import os


os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

try:
    import spaces  # ZeroGPU; must come before torch
except ImportError:
    spaces = None

import argparse
import io
import shutil
import wave
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import texts
from engine import Answer, Engine, Line, Settings, SpaceError, Turn, joined, read_question, sound_rate


HERE = Path(__file__).resolve().parent
WAITING_LIMIT = 16
GPU_SECONDS = 60
DAY = 24 * 3600

FONT = ("system-ui", "sans-serif")
MONO = ("ui-monospace", "monospace")
THEME = gr.themes.Base(primary_hue="teal", secondary_hue="teal", neutral_hue="slate", font=FONT, font_mono=MONO)
CSS = """
.gradio-container { max-width: 1120px !important; margin: 0 auto; }
.fo-banner { padding: .5rem .8rem; border-radius: 8px; border: 1px solid #f59e0b; background: #fef3c7;
  color: #78350f; line-height: 1.4; }
.block:has(#fo-microphone[hidden]) { display: none !important; }
.gradio-container .html-container { padding: 0 !important; }
#fo-buttons button { padding-inline: .4rem; white-space: nowrap; }
#fo-chat button[aria-label="Share"] { display: none; }
#fo-times table { width: 100%; margin: 0; border: 0 !important; border-collapse: collapse; table-layout: fixed;
  font-size: .875rem; }
#fo-times tr, #fo-times th, #fo-times td { border: 0; padding: .2rem 0; background: none; line-height: 1.3; }
#fo-times th { width: 8.5rem; text-align: left; font-weight: 400; }
#fo-times td:nth-child(2) { width: 4.8rem; padding-right: .8rem; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
#fo-times td:nth-child(3) { color: var(--body-text-color-subdued); font-size: .75rem; }
#fo-times .fo-rule > * { border-top: 1px solid var(--border-color-primary); }
.fo-bar { display: block; height: .6rem; min-width: 2px; border-radius: 3px; background: var(--primary-500); }
.fo-hint { margin: 0 !important; color: var(--body-text-color-subdued); font-size: .875rem; }
"""
HEAD = f"<script>{(HERE / 'microphone.js').read_text()}</script>"
# Of `launch`: the looks, and no server-side rendering (it needs Node.js).
LAUNCH = {
    "theme": THEME,
    "css": CSS,
    "head": HEAD,
    "footer_links": [],
    "max_file_size": "20mb",
    "ssr_mode": False,
}


def create_app(engine: Engine, model: str = "", llm: str = "", streaming: bool | None = None) -> gr.Blocks:
    """The page around an engine.

    Args:
        engine: Loads and answers.
        model: Checkpoint to start with; the embedded one if empty.
        llm: Its frozen LLM; the one that the checkpoint names if empty.
        streaming: Whether sound is heard while it is made; by default where ffmpeg, which encodes it, is there.
    """
    streaming = shutil.which("ffmpeg") is not None if streaming is None else streaming
    line = Line(WAITING_LIMIT)
    answer_on_gpu = _on_gpu(
        lambda choice, turns, question, settings: engine.answer(engine.load(*choice), turns, question, settings)
    )
    try:
        first = engine.load(model, llm)
        choice, settings = (model, llm), first.settings
        status, warning = first.describe(), ""
    except SpaceError as error:
        choice, settings, status, warning = None, Settings(), str(error), str(error)

    with gr.Blocks(title=texts.TITLE, delete_cache=(3600, DAY), analytics_enabled=False) as page:
        turns_state, pending_state, choice_state = gr.State([]), gr.State(None), gr.State(choice)
        gr.Markdown(f"# {texts.TITLE}\n{texts.INTRO}")
        banner = gr.HTML(texts.banner(warning), visible=bool(warning), padding=False, elem_id="fo-banner")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                chat = gr.Chatbot(
                    label="Conversation",
                    placeholder=texts.CHAT_PLACEHOLDER,
                    height=360,
                    layout="bubble",
                    buttons=[],
                    feedback_options=None,
                    elem_id="fo-chat",
                )
                question = gr.Audio(
                    label="Question (sent when the recording stops)",
                    sources=["microphone", "upload"],
                    type="filepath",
                    buttons=[],
                    editable=False,
                    elem_id="fo-question",
                )
                gr.HTML(texts.microphone_notice(), padding=False)
                notice = gr.HTML(visible=False, padding=False, elem_id="fo-notice")
                with gr.Row(elem_id="fo-buttons"):
                    ask = gr.Button("Ask", variant="primary", min_width=80, elem_id="fo-ask")
                    stop = gr.Button("Stop", variant="stop", min_width=80, elem_id="fo-stop")
                    clear = gr.Button("Start over", min_width=80, elem_id="fo-clear")
                examples = example_questions()
                if examples:
                    gr.Examples(
                        [[str(path)] for path in examples],
                        [question],
                        label="Examples",
                        example_labels=[texts.EXAMPLE_LABELS.get(path.name, path.stem) for path in examples],
                    )
            with gr.Column(scale=2, min_width=300):
                player = gr.Audio(
                    label="Answer",
                    streaming=streaming,
                    autoplay=True,
                    interactive=False,
                    buttons=[] if streaming else ["download"],
                    elem_id="fo-player",
                )
                times = gr.HTML(texts.timing_table({}, 0.0), padding=False, elem_id="fo-times")
                controls = _controls(settings)
                with gr.Accordion("Model", open=choice is None):
                    name = gr.Textbox(model, label="Checkpoint", placeholder=texts.MODEL_HINT)
                    llm_name = gr.Textbox(llm, label="LLM", placeholder=texts.LLM_HINT)
                    load = gr.Button("Load", size="sm", elem_id="fo-load")
                    loaded_status = gr.Markdown(status, elem_id="fo-status")

        def begin(
            request: gr.Request, recording: str | None, turns: list[Turn], chosen: tuple[str, str] | None
        ) -> dict:
            """Check the question, take a place in the line and show the question."""
            try:
                if chosen is None:
                    raise SpaceError(texts.NO_MODEL)
                read_question(recording, 16000)
                ticket = line.enter(request.session_hash)
            except SpaceError as error:
                return {pending_state: None, notice: show_notice(str(error))}
            return {
                pending_state: (recording, ticket),
                chat: as_chat([*turns, Turn(recording)]),
                question: None,
                player: None,
                notice: show_notice(""),
                times: texts.timing_table({}, 0.0),
            }

        def answer(
            request: gr.Request,
            pending: tuple[str, int] | None,
            turns: list[Turn],
            chosen: tuple[str, str],
            *values: Any,
        ) -> Iterator[dict]:
            """Answer the pending question, step by step."""
            if pending is None:
                yield {chat: gr.skip()}
                return
            visitor, (recording, ticket) = request.session_hash, pending
            turn, sounds, done, rate = Turn(recording), [], None, 0
            try:
                rate = sound_rate(engine.load(*chosen))
                steps = answer_on_gpu(chosen, turns, recording, Settings(*values))
                try:
                    while line.goes_on(visitor, ticket) and (step := next(steps, None)) is not None:
                        if isinstance(step, Answer):
                            done = step
                        elif line.goes_on(visitor, ticket):
                            turn.text += step.text
                            update = {chat: as_chat([*turns, turn])}
                            if step.sound is not None:
                                sounds.append(step.sound)
                                if streaming:
                                    update[player] = as_wav(step.sound, rate)
                            yield update
                finally:
                    steps.close()
                if not line.holds(visitor, ticket):  # the visitor has started over
                    yield {chat: gr.skip()}
                    return
            except SpaceError as error:
                yield {chat: as_chat(turns), notice: show_notice(str(error))}
                return
            finally:
                line.leave(visitor, ticket)
            turn.text = turn.text.strip()
            if not done:
                turn.note = texts.STOPPED
            elif not turn.text:
                turn.note = texts.NO_TEXT
            if done:
                turn.heard = done.heard
            sound = joined(sounds)
            if len(sound):
                turn.sound = save_sound(as_wav(sound, rate), chat.GRADIO_CACHE)
            turns = [*turns, turn]
            update = {chat: as_chat(turns), turns_state: turns}
            if done:
                update[times] = texts.timing_table(done.timings, len(sound) / rate)
                if turn.sound and not streaming:
                    update[player] = turn.sound
            yield update

        def stop_answer(request: gr.Request) -> None:
            """End the visitor's answer, and with it (by returning None) the sound that is heard."""
            line.stop(request.session_hash)

        def leave(request: gr.Request) -> None:
            """The visitor has closed the page."""
            line.leave(request.session_hash)

        def restart(request: gr.Request):
            """An empty conversation."""
            line.leave(request.session_hash)
            return [], [], None, None, texts.timing_table({}, 0.0), show_notice("")

        def change_model(name: str, llm: str, chosen: tuple[str, str] | None):
            """Load another model; the old one stays where that fails."""
            yield {loaded_status: texts.LOADING.format(name=name.strip() or "the embedded model")}
            try:
                loaded = engine.load(name, llm)
            except SpaceError as error:
                message = str(error) if chosen is None else texts.OLD_MODEL_KEPT.format(error=error)
                yield {loaded_status: message}
                return
            yield {
                loaded_status: loaded.describe(),
                choice_state: (name, llm),
                banner: show_notice(""),
                # The system prompt is the visitor's; the rest follows the model.
                **dict(zip(controls[1:], astuple(loaded.settings)[1:], strict=True)),
            }

        gr.on(
            [ask.click, question.stop_recording],
            begin,
            [question, turns_state, choice_state],
            [pending_state, chat, question, player, times, notice],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        ).then(
            answer,
            [pending_state, turns_state, choice_state, *controls],
            [chat, player, times, turns_state, notice],
            concurrency_id="model",
            concurrency_limit=1,
            show_progress="hidden",
            api_visibility="private",
        )
        stop.click(stop_answer, outputs=player, queue=False, show_progress="hidden", api_visibility="private")
        page.unload(leave)
        gr.on(
            [clear.click, chat.clear],
            restart,
            outputs=[turns_state, chat, question, player, times, notice],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        load.click(
            change_model,
            [name, llm_name, choice_state],
            [loaded_status, choice_state, banner, *controls],
            concurrency_id="model",
            show_progress="minimal",
            show_progress_on=loaded_status,
            api_visibility="private",
        )
    # The line turns people away in words of its own; the queue's limit is for whoever does not come through the page.
    return page.queue(max_size=2 * WAITING_LIMIT)


def _controls(settings: Settings) -> list[gr.components.Component]:
    """One component a field of `Settings`, in their order."""
    with gr.Accordion("Text", open=False):
        system_prompt = gr.Textbox(
            settings.system_prompt, label="System prompt", lines=2, placeholder="empty: the checkpoint's own"
        )
        greedy = gr.Checkbox(settings.greedy, label="Greedy: always the likeliest token")
        temperature = gr.Slider(0.1, 2.0, settings.temperature, step=0.05, label="Temperature")
        top_k = gr.Slider(0, 200, settings.top_k, step=1, label="Top-k (0: off)")
        top_p = gr.Slider(0.05, 1.0, settings.top_p, step=0.05, label="Top-p")
        max_new_tokens = gr.Slider(8, 512, settings.max_new_tokens, step=8, label="Longest answer, in tokens")
    with gr.Accordion("Voice", open=False):
        speech_top_k = gr.Slider(1, 100, settings.speech_top_k, step=1, label="Top-k of speech tokens (1: greedy)")
        speech_temperature = gr.Slider(
            0.1, 2.0, settings.speech_temperature, step=0.05, label="Temperature of speech tokens"
        )
        segment_policy = gr.Radio(
            [("A short first piece", "short_first"), ("Whole sentences", "sentence")],
            value=settings.segment_policy,
            label="Speaking starts after",
        )
    return [
        system_prompt,
        greedy,
        temperature,
        top_k,
        top_p,
        max_new_tokens,
        speech_top_k,
        speech_temperature,
        segment_policy,
    ]


def _on_gpu(function: Callable[..., Iterator]) -> Callable[..., Iterator]:
    """The function on a borrowed GPU where the Space runs on ZeroGPU, else as it is."""

    def steps(*args: Any) -> Iterator:
        yield from function(*args)

    return steps if spaces is None else spaces.GPU(duration=GPU_SECONDS)(steps)


def show_notice(text: str) -> gr.HTML:
    """Show a notice, or hide it where there is nothing to say."""
    return gr.HTML(texts.banner(text), visible=bool(text))


def as_chat(turns: list[Turn]) -> list[dict[str, Any]]:
    """A conversation as the messages of a `gr.Chatbot`."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages.append({"role": "user", "content": {"path": turn.question}})
        if turn.heard:
            messages.append({"role": "user", "content": texts.HEARD.format(words=turn.heard)})
        messages += [{"role": "assistant", "content": words} for words in (turn.text, turn.note) if words]
        if turn.sound:
            messages.append({"role": "assistant", "content": {"path": turn.sound}})
    return messages


def as_wav(samples: np.ndarray, sampling_rate: int) -> bytes:
    """A 16-bit WAV file of mono float samples."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes((samples.clip(-1.0, 1.0) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def save_sound(wav: bytes, folder: str) -> str:
    """Put a WAV file where Gradio serves files from; returns its path."""
    return gr.processing_utils.save_bytes_to_cache(wav, "answer.wav", cache_dir=folder)


def example_questions() -> list[Path]:
    """Sound files of ``examples/``: beside this file (on the Hub), or in the source tree around it."""
    for folder in (HERE / "examples", HERE.parent / "examples"):
        if folder.is_dir():
            return sorted(folder.glob("*.wav"))
    return []


def main(argv: list[str] | None = None) -> None:
    """Serve the page."""
    parser = argparse.ArgumentParser(description="The Gradio page of freeze-omni-hf.")
    parser.add_argument("--model", default=os.environ.get("FREEZE_OMNI_MODEL", ""), help="folder or Hub id")
    parser.add_argument("--llm", default=os.environ.get("FREEZE_OMNI_LLM", ""), help="its LLM: folder or Hub id")
    parser.add_argument("--port", type=int, help="default: GRADIO_SERVER_PORT, or the first free one from 7860")
    parser.add_argument("--share", action="store_true", help="a public link through Gradio's servers")
    args = parser.parse_args(argv)
    create_app(Engine(), args.model, args.llm).launch(server_port=args.port, share=args.share, **LAUNCH)


if __name__ == "__main__":
    main()
