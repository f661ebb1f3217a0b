# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The page in headless Chromium, whose microphone plays an example question."""

import shutil
import socket
from contextlib import contextmanager
from pathlib import Path

import app
import pytest
import texts


pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
PATIENCE = 20_000  # ms


@pytest.fixture(scope="module")
def playwright():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"Chromium is not at {CHROMIUM}")
    with sync_api.sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def address(engine, checkpoint):
    """The page with the tiny model, on a free port of this machine alone."""
    page = app.create_app(engine, str(checkpoint))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _, url, _ = page.launch(
        server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, **app.LAUNCH
    )
    yield url
    page.close()


@contextmanager
def opened(playwright, address, size="desktop", flags=()):
    """The loaded page; requests to other machines fail and are listed in ``page.strangers``."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
    width, height = SIZES[size]
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.strangers = []

    def guard(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            page.strangers.append(route.request.url)
            route.abort()

    page.route("**/*", guard)
    page.set_default_timeout(PATIENCE)
    try:
        page.goto(address)
        page.wait_for_selector("#fo-ask")
        yield page
    finally:
        browser.close()


@pytest.mark.parametrize("size", SIZES)
def test_recorded_question_is_answered(playwright, address, question, size):
    flags = ["--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={question}"]
    with opened(playwright, address, size, flags) as page:
        page.click("#fo-ask")
        page.wait_for_selector("#fo-notice .fo-banner")
        assert texts.NO_AUDIO in page.inner_text("#fo-notice")

        page.click("#fo-question .record-button")
        page.wait_for_timeout(1500)
        page.click("#fo-question .stop-button")
        page.wait_for_selector("#fo-times table")
        assert "Real-time factor" in page.inner_text("#fo-times")
        assert page.inner_text("#fo-chat .bot .message-content, #fo-chat .message.bot").strip()
        page.wait_for_selector("#fo-chat .bot .play-btn")
        # Streamed (a blob that the player fills) with ffmpeg, a file without.
        page.wait_for_function("[...document.querySelectorAll('#fo-player audio')].some((audio) => audio.src)")
        assert page.query_selector("#fo-notice .fo-banner") is None

        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert overflow <= 0
        assert page.strangers == []

        page.click("#fo-clear")
        page.wait_for_selector("#fo-chat .play-btn", state="detached")
        assert texts.NO_TIMES in page.inner_text("#fo-times")


def test_example_question_is_answered(playwright, address):
    with opened(playwright, address) as page:
        page.get_by_text(texts.EXAMPLE_LABELS["question_3.wav"]).click()
        page.wait_for_selector("#fo-question .waveform-container, #fo-question [data-testid^=waveform]")
        page.click("#fo-ask")
        page.wait_for_selector("#fo-times table")


def test_refused_microphone_is_explained(playwright, address):
    with opened(playwright, address, flags=["--deny-permission-prompts"]) as page:
        assert not page.is_visible("#fo-microphone")
        page.click("#fo-question .record-button")
        page.wait_for_selector("#fo-microphone", state="visible")
        assert page.inner_text("#fo-microphone") == texts.MICROPHONE_REFUSED
