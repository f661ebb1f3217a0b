# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Everything the page says."""

from html import escape


TITLE = "Freeze-Omni"
INTRO = (
    "Ask a question aloud. A language model whose weights never change hears it and answers with text and voice "
    "([paper](https://arxiv.org/abs/2411.00774))."
)
CHAT_PLACEHOLDER = "Record, upload or pick a question."
# The first questions of examples/, by file name.
EXAMPLE_LABELS = {
    "question.wav": "What is the capital of France?",
    "question_2.wav": "How many days are there in a week?",
    "question_3.wav": "What color is the sky?",
}

NO_AUDIO = (
    "No sound arrived. Record a question or choose a file first. If the microphone does not start, allow it for this "
    "page in the browser's address bar."
)
SILENCE = "Nothing was heard: the recording is silent. Check that the right microphone is chosen and not muted."
TOO_SHORT = "The recording is too short: {seconds:.2f} s. Speak a whole question."
TOO_LONG = "The recording is too long. A question may last up to {limit:.0f} s."
UNREADABLE = "The file cannot be read as sound. WAV, FLAC, MP3 and OGG work."
GONE = "A recording of this conversation is no longer on the server. Start a new conversation."
NO_MODEL = "No model is loaded. Choose one under “Model”."
NOT_LOADED = "The model {name} could not be loaded: {reason}."
OLD_MODEL_KEPT = "{error} The model before it is still in use."
NO_FOLDER = "there is no such folder"
NOT_OURS = "its config.json says model_type {found!r}, not 'freeze_omni'"
FAILED = "The answer could not be made: {reason}."
OUT_OF_MEMORY = "the device is out of memory; ask for fewer tokens or start a new conversation"
STILL_ANSWERING = "The last question is still being answered. Stop it first."
BUSY = "Too many people are asking right now ({count} in line). Try again in a minute."
HEARD = "*Heard:* {words}"
STOPPED = "*Stopped.*"
NO_TEXT = "*The model ended its answer at once.*"
LOADING = "Loading {name} …"
IN_USE = "In use: **{name}**, {millions:.0f} M parameters with its LLM, on {device}{voice}."
TEXT_ONLY = "; it has no voice and answers with text alone"
MODEL_HINT = "folder or Hub id; empty: the embedded one"
LLM_HINT = "folder or Hub id; empty: the checkpoint's own"
NO_TIMES = "The time of each part appears here after an answer."

MICROPHONE_REFUSED = "The browser refused the microphone. Allow it for this page in the address bar, or upload a file."
MICROPHONE_MISSING = "No microphone was found. Connect one, or upload a file."
MICROPHONE_INSECURE = "Browsers give the microphone to https pages and to localhost only. Upload a file instead."

_PARTS = {
    "features": "Features",
    "audio_encoder": "Speech encoder",
    "text_prefill": "LLM prefill",
    "text": "LLM text",
    "speech_decoder": "Speech decoder",
    "codec": "Codec",
}
_EVENTS = {"first_text": "Until first text", "first_sound": "Until first sound"}


def timing_table(timings: dict[str, float], sound_seconds: float) -> str:
    """HTML table of the milliseconds of each part of an answer.

    Args:
        timings: Seconds by part, as ``generate`` gives them, with ``features``.
        sound_seconds: Length of the answer's sound.
    """
    if not timings:
        return f'<p class="fo-hint">{escape(NO_TIMES)}</p>'
    total = sum(timings.get(part, 0.0) for part in _PARTS)
    rows = []
    for part, words in _PARTS.items():
        if part in timings:
            share = 100 * timings[part] / total if total else 0
            bar = f'<span class="fo-bar" style="width:{share:.1f}%"></span>'
            rows.append(_row(words, f"{1000 * timings[part]:,.0f} ms", bar))
    parts = len(rows)
    for event, words in _EVENTS.items():
        if event in timings:
            after = timings.get("features", 0.0) + timings[event]
            rows.append(_row(words, f"{1000 * after:,.0f} ms", "", len(rows) == parts))
    if sound_seconds > 0:
        note = f"{total:.1f} s for {sound_seconds:.1f} s"
        rows.append(_row("Real-time factor", f"{total / sound_seconds:.2f}", note))
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def _row(name: str, value: str, note: str, ruled: bool = False) -> str:
    kind = ' class="fo-rule"' if ruled else ""
    return f'<tr{kind}><th scope="row">{name}</th><td>{value}</td><td>{note}</td></tr>'


def microphone_notice() -> str:
    """HTML of the hidden box that microphone.js fills where the microphone does not start."""
    return (
        f'<div id="fo-microphone" class="fo-banner" role="alert" hidden '
        f'data-refused="{escape(MICROPHONE_REFUSED)}" data-missing="{escape(MICROPHONE_MISSING)}" '
        f'data-insecure="{escape(MICROPHONE_INSECURE)}"></div>'
    )


def banner(text: str) -> str:
    """HTML of the warning on top of the page; empty for no warning."""
    return f'<div class="fo-banner" role="status">{escape(text)}</div>' if text else ""
