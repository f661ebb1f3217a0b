# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Speech tokens to sound in overlapping windows: offline, streaming, and many conversations at once.

A window is decoded with ``overlap`` tokens of context on either side and only its middle is kept, so the pieces join
by plain concatenation. The first window has ``chunk_size + overlap`` tokens, the later ones
``chunk_size + 2 * overlap``, the last one whatever remains. Offline and streaming decoding use the same windows and
so give the same sound. With an overlap of `FreezeOmniCodec.context_tokens` or more it is also the sound of decoding
everything at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from .silence import SilenceSplitter


if TYPE_CHECKING:
    from .modeling import FreezeOmniCodec


# 25 s of sound in one batch: enough to fill the machine, little enough for its memory.
MAX_BATCH_TOKENS = 1024


class Window(NamedTuple):
    """One window over the tokens of an utterance; all four are token indices from its start.

    ``start`` to ``end`` is decoded, the sound of ``keep_start`` to ``keep_end`` is kept.
    """

    start: int
    end: int
    keep_start: int
    keep_end: int


class WindowSizes(NamedTuple):
    """How an utterance is cut: tokens kept of a window, tokens of context, tokens kept of the first window."""

    chunk_size: int
    overlap: int
    first_chunk_size: int

    @classmethod
    def checked(cls, chunk_size: int, overlap: int, first_chunk_size: int | None = None) -> "WindowSizes":
        """Fills in the default of the first window.

        Raises:
            ValueError: a chunk is shorter than one token or the overlap is negative.
        """
        first_chunk_size = chunk_size if first_chunk_size is None else first_chunk_size
        if chunk_size < 1 or first_chunk_size < 1 or overlap < 0:
            raise ValueError(
                f"chunk_size={chunk_size} and first_chunk_size={first_chunk_size} must be at least 1 and "
                f"overlap={overlap} must not be negative."
            )
        return cls(chunk_size, overlap, first_chunk_size)

    def next_window(self, done: int, available: int, last: bool) -> Window | None:
        """Window after ``done`` tokens have become sound, given ``available`` tokens so far; None to wait for more.

        With ``last`` no more tokens will come, and the last window takes what remains.
        """
        start = max(0, done - self.overlap)
        keep_end = done + (self.chunk_size if done else self.first_chunk_size)
        if keep_end + self.overlap <= available:
            return Window(start, keep_end + self.overlap, done, keep_end)
        return Window(start, available, done, available) if last and done < available else None


def window_plan(num_tokens: int, chunk_size: int, overlap: int, first_chunk_size: int | None = None) -> list[Window]:
    """All windows of an utterance of ``num_tokens`` tokens; the kept parts follow each other without a gap."""
    sizes = WindowSizes.checked(chunk_size, overlap, first_chunk_size)
    windows, done = [], 0
    while (window := sizes.next_window(done, num_tokens, last=True)) is not None:
        windows.append(window)
        done = window.keep_end
    return windows


class _Job(NamedTuple):
    """Tokens (n, ...) to decode, the part of their sound to keep (in tokens), and the voice (G,)."""

    codes: torch.Tensor
    keep_start: int
    keep_end: int
    global_tokens: torch.Tensor | None


def decode_windows(
    codec: "FreezeOmniCodec",
    codes_list: Sequence[torch.Tensor],
    chunk_size: int,
    overlap: int,
    global_tokens: torch.Tensor | Sequence[int] | None = None,
    first_chunk_size: int | None = None,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
) -> list[torch.Tensor]:
    """Decodes utterances of any lengths window by window; all windows of all utterances share batches.

    Args:
        codec: The codec.
        codes_list: For each utterance its tokens (N,) (or (N, num_codebooks)); N may be 0.
        chunk_size: Tokens kept of a window.
        overlap: Tokens of context on either side.
        global_tokens: Voice (G,) of all or (B, G) of each utterance; None for the default voice.
        first_chunk_size: Tokens kept of the first window, ``chunk_size`` by default.
        max_batch_tokens: Upper bound of the tokens in one batch, padding included.

    Returns:
        For each utterance its samples (N * samples_per_token,).
    """
    voices = codec.expand_global_tokens(global_tokens, len(codes_list))
    jobs, owners = [], []
    for row, codes in enumerate(codes_list):
        for window in window_plan(len(codes), chunk_size, overlap, first_chunk_size):
            jobs.append(_job(window, codes, 0, None if voices is None else voices[row]))
            owners.append(row)
    return _decode_jobs(codec, jobs, owners, len(codes_list), max_batch_tokens)


@dataclass
class CodecStreamState:
    """What a stream remembers between two calls: a few tokens and two numbers.

    Args:
        codes: (n,) or (n, num_codebooks) tokens still needed: left context and those that are not sound yet.
        offset: Index in the utterance of the first of them.
        done: Tokens of the utterance that have become sound.
    """

    codes: torch.Tensor
    offset: int = 0
    done: int = 0

    def clone(self) -> "CodecStreamState":
        """A copy that lives on by itself."""
        return CodecStreamState(self.codes.clone(), self.offset, self.done)

    def to(self, device: torch.device | str) -> "CodecStreamState":
        """The state on another device."""
        return CodecStreamState(self.codes.to(device), self.offset, self.done)

    def state_dict(self) -> dict[str, Any]:
        """Plain content, for saving."""
        return {"codes": self.codes.clone(), "offset": self.offset, "done": self.done}

    @classmethod
    def from_state_dict(cls, state_dict: dict[str, Any]) -> "CodecStreamState":
        """The state that `state_dict` wrote."""
        return cls(state_dict["codes"].clone(), int(state_dict["offset"]), int(state_dict["done"]))


class CodecStream:
    """The codec's side of one conversation: tokens go in as they come, sound comes out as soon as it can.

    Args:
        codec: The codec; shared by all streams, nothing of a stream is kept in it.
        chunk_size: Tokens that become sound together.
        overlap: Tokens of context on either side; sound lags ``overlap`` tokens behind.
        first_chunk_size: Tokens of the first chunk of an utterance; small for early sound.
        global_tokens: Voice (G,); None for the default voice.
    """

    def __init__(
        self,
        codec: "FreezeOmniCodec",
        chunk_size: int = 40,
        overlap: int = 10,
        first_chunk_size: int | None = None,
        global_tokens: torch.Tensor | Sequence[int] | None = None,
    ):
        self.codec = codec
        self.sizes = WindowSizes.checked(chunk_size, overlap, first_chunk_size)
        voices = codec.expand_global_tokens(global_tokens, 1)
        self.global_tokens = None if voices is None else voices[0]
        self.reset()

    def reset(self) -> None:
        """Drops what is pending and starts a new utterance."""
        shape = (0,) if self.codec.config.num_codebooks == 1 else (0, self.codec.config.num_codebooks)
        self.state = CodecStreamState(torch.zeros(shape, dtype=torch.long, device=self.codec.device))

    def push(self, tokens: torch.Tensor) -> torch.Tensor:
        """Takes the next tokens (n,) and returns the samples (m,) that are ready, m possibly 0."""
        return push_streams([self], [tokens])[0]

    def finish(self) -> torch.Tensor:
        """Returns the samples (m,) of the tokens still pending; the stream is then ready for the next utterance."""
        return finish_streams([self])[0]

    def state_dict(self) -> dict[str, Any]:
        """Content of the state, for saving."""
        return self.state.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a saved state."""
        self.state = CodecStreamState.from_state_dict(state_dict).to(self.codec.device)

    def _check(self, tokens: torch.Tensor) -> None:
        expected = self.state.codes.shape[1:]
        if tokens.dim() == 0 or tokens.shape[1:] != expected or tokens.is_floating_point():
            raise ValueError(
                f"Speech tokens must be integers of shape (n{''.join(f', {size}' for size in expected)}), not "
                f"{tokens.dtype} of shape {tuple(tokens.shape)}."
            )
        self.codec.check_codes(tokens)

    def _append(self, tokens: torch.Tensor) -> None:
        self.state.codes = torch.cat([self.state.codes, tokens.to(self.state.codes)])

    def _due(self, last: bool) -> list[_Job]:
        """Takes the windows that can be decoded now out of the state."""
        state, jobs = self.state, []
        while (window := self.sizes.next_window(state.done, state.offset + len(state.codes), last)) is not None:
            jobs.append(_job(window, state.codes, state.offset, self.global_tokens))
            state.done = window.keep_end
            start = max(0, state.done - self.sizes.overlap)
            state.codes, state.offset = state.codes[start - state.offset :], start
        return jobs


def push_streams(
    streams: Sequence[CodecStream], tokens: Sequence[torch.Tensor], max_batch_tokens: int = MAX_BATCH_TOKENS
) -> list[torch.Tensor]:
    """`CodecStream.push` for several conversations that share a codec: their due windows are decoded together.

    Returns:
        For each stream the samples (m,) that are ready.

    Raises:
        ValueError: a token outside the codebook or of the wrong shape; then no stream has taken anything.
    """
    for stream, new in zip(streams, tokens, strict=True):
        stream._check(new)
    for stream, new in zip(streams, tokens, strict=True):
        stream._append(new)
    return _run_streams(streams, False, max_batch_tokens)


def finish_streams(streams: Sequence[CodecStream], max_batch_tokens: int = MAX_BATCH_TOKENS) -> list[torch.Tensor]:
    """`CodecStream.finish` for several conversations that share a codec."""
    audio = _run_streams(streams, True, max_batch_tokens)
    for stream in streams:
        stream.reset()
    return audio


def _run_streams(streams: Sequence[CodecStream], last: bool, max_batch_tokens: int) -> list[torch.Tensor]:
    if not streams:
        return []
    codec = streams[0].codec
    if any(stream.codec is not codec for stream in streams):
        raise ValueError("Streams that are decoded together must share one codec.")
    jobs, owners = [], []
    for row, stream in enumerate(streams):
        due = stream._due(last)
        jobs += due
        owners += [row] * len(due)
    return _decode_jobs(codec, jobs, owners, len(streams), max_batch_tokens)


def _job(window: Window, codes: torch.Tensor, offset: int, global_tokens: torch.Tensor | None) -> _Job:
    """Job of ``window`` where ``codes[0]`` is token ``offset`` of the utterance."""
    return _Job(
        codes[window.start - offset : window.end - offset],
        window.keep_start - window.start,
        window.keep_end - window.start,
        global_tokens,
    )


@torch.no_grad()
def _decode_jobs(
    codec: "FreezeOmniCodec", jobs: list[_Job], owners: list[int], rows: int, max_batch_tokens: int
) -> list[torch.Tensor]:
    """Decodes ``jobs`` in batches of similar length; row ``owners[i]`` of the result gets the sound of job ``i``."""
    pieces: list[torch.Tensor | None] = [None] * len(jobs)
    samples = codec.config.samples_per_token
    order = sorted(range(len(jobs)), key=lambda index: len(jobs[index].codes), reverse=True)
    while order:
        size = max(1, max_batch_tokens // len(jobs[order[0]].codes))
        batch, order = order[:size], order[size:]
        decoded = codec.decode(
            pad_sequence([jobs[index].codes for index in batch], batch_first=True).to(codec.device),
            global_tokens=None
            if jobs[batch[0]].global_tokens is None
            else torch.stack([jobs[index].global_tokens for index in batch]),
            code_lengths=torch.tensor([len(jobs[index].codes) for index in batch]),
            return_dict=True,
        )
        for audio, index in zip(decoded.audio_values, batch, strict=True):
            pieces[index] = audio[jobs[index].keep_start * samples : jobs[index].keep_end * samples]
    nothing = torch.zeros(0, device=codec.device)
    return [
        torch.cat([nothing, *(piece for piece, owner in zip(pieces, owners, strict=True) if owner == row)])
        for row in range(rows)
    ]


__all__ = [
    "CodecStream",
    "CodecStreamState",
    "SilenceSplitter",
    "Window",
    "decode_windows",
    "finish_streams",
    "push_streams",
    "window_plan",
]
