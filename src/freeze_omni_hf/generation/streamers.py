# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Sound as it is made. Text is streamed with transformers' own text streamers."""

from collections.abc import Callable
from queue import Queue
from threading import Thread
from typing import Any, NamedTuple

import torch
from torch import Tensor


class AudioChunk(NamedTuple):
    """A piece of sound: (n,) float samples on the CPU, and the row of the batch that it belongs to."""

    samples: Tensor
    row: int


class AudioStreamer:
    """Receives sound from ``generate(audio_streamer=...)``; subclass it, or give a callback.

    Args:
        callback: Called with each `AudioChunk`.
    """

    def __init__(self, callback: Callable[[AudioChunk], Any] | None = None):
        self.callback = callback

    def put(self, samples: Tensor, row: int = 0) -> None:
        """Take samples (n,) of one row."""
        if self.callback is not None:
            self.callback(AudioChunk(samples.detach().to("cpu", torch.float32), row))

    def end(self) -> None:
        """No more sound will come."""


class AudioIteratorStreamer(AudioStreamer):
    """Sound as an iterator, for ``generate`` in another thread (see `generate_in_thread`).

    Args:
        timeout: Seconds to wait for the next piece before `queue.Empty` is raised; None waits for ever.
    """

    def __init__(self, timeout: float | None = None):
        super().__init__()
        self.queue: Queue = Queue()
        self.timeout = timeout

    def put(self, samples: Tensor, row: int = 0) -> None:
        self.queue.put(AudioChunk(samples.detach().to("cpu", torch.float32), row))

    def end(self) -> None:
        self.queue.put(None)

    def __iter__(self) -> "AudioIteratorStreamer":
        return self

    def __next__(self) -> AudioChunk:
        item = self.queue.get(timeout=self.timeout)
        if item is None:
            raise StopIteration
        return item


class GenerationThread(Thread):
    """Runs ``generate`` in a thread; ``result()`` waits for it and raises what it raised.

    Streamers are always ended, so that whoever iterates over them does not hang after an error.
    """

    def __init__(self, generate: Callable[..., Any], **kwargs):
        super().__init__(daemon=True)
        self.generate, self.kwargs = generate, kwargs
        self._output: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._output = self.generate(**self.kwargs)
        except BaseException as error:  # handed to the caller's thread by result()
            self._error = error
            for name in ("streamer", "audio_streamer"):
                if self.kwargs.get(name) is not None:
                    self.kwargs[name].end()

    def result(self) -> Any:
        """The output of ``generate``."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._output


def generate_in_thread(generate: Callable[..., Any], **kwargs) -> GenerationThread:
    """Start ``generate(**kwargs)`` in a thread."""
    thread = GenerationThread(generate, **kwargs)
    thread.start()
    return thread


__all__ = ["AudioChunk", "AudioIteratorStreamer", "AudioStreamer", "GenerationThread", "generate_in_thread"]
