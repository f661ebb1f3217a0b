# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Any codec with one codebook that transformers loads, in the place of ours."""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForAudioTokenization
from transformers.modeling_utils import PreTrainedAudioTokenizerBase

from ...configuration.codec import FreezeOmniOtherCodecConfig
from .modeling import FreezeOmniCodecDecoderOutput, FreezeOmniCodecEncoderOutput, _check_ids
from .streaming import MAX_BATCH_TOKENS, CodecStream, decode_windows


class FreezeOmniOtherCodec(PreTrainedAudioTokenizerBase):
    """A codec of another architecture behind the interface of `FreezeOmniCodec`.

    Rows of a batch are encoded and decoded one by one, since codecs treat padding in many ways.
    """

    config: FreezeOmniOtherCodecConfig
    base_model_prefix = "codec"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    output_modalities = ("audio",)

    def __init__(self, config: FreezeOmniOtherCodecConfig):
        super().__init__(config)
        self.inner = AutoModelForAudioTokenization.from_config(config.inner_config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        """The inner codec initialises itself."""

    @classmethod
    def around(cls, codec: Any) -> "FreezeOmniOtherCodec":
        """A loaded codec of transformers with this interface.

        Raises:
            ValueError: it has several codebooks, or does not say its sampling rate or the size of its codebook.
        """
        inner = codec.config
        rate = getattr(inner, "sampling_rate", None) or getattr(inner, "sample_rate", None)
        size = getattr(inner, "codebook_size", None)
        if not rate or not size:
            raise ValueError(f"{type(codec).__name__} does not say its sampling rate and codebook size.")
        codes = _codes_of(codec, torch.zeros(1, int(rate), dtype=codec.dtype, device=codec.device))
        hop = getattr(inner, "hop_length", None) or math.ceil(rate / codes.shape[1])
        config = FreezeOmniOtherCodecConfig(
            inner_config=inner, sampling_rate=int(rate), codebook_size=int(size), samples_per_token=int(hop)
        )
        with torch.device("meta"):
            wrapped = cls(config)
        wrapped.inner = codec
        return wrapped

    @property
    def context_tokens(self) -> int:
        """Tokens of context on each side of a window."""
        return self.config.context_tokens

    @torch.no_grad()
    def encode(
        self, input_values: Tensor, padding_mask: Tensor | None = None, return_dict: bool | None = None
    ) -> FreezeOmniCodecEncoderOutput | tuple:
        """Speech tokens of (B, T) or (B, 1, T) samples; see `FreezeOmniCodec.encode`."""
        values = input_values.reshape(input_values.shape[0], -1)
        lengths = torch.full((len(values),), values.shape[1])
        if padding_mask is not None:
            lengths = padding_mask.reshape(len(values), -1).long().sum(dim=1).cpu()
        rows = []
        for row, length in zip(values, lengths.tolist(), strict=True):
            codes = _codes_of(self.inner, row[None, :length].to(self.inner.device, self.inner.dtype))
            rows.append(codes[0, : max(length // self.config.samples_per_token, 1)])
        codes = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        output = FreezeOmniCodecEncoderOutput(codes, None, torch.tensor([len(row) for row in rows]))
        return output.to_tuple() if return_dict is False else output

    @torch.no_grad()
    def decode(
        self,
        audio_codes: Tensor,
        global_tokens: Any = None,
        code_lengths: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> FreezeOmniCodecDecoderOutput | tuple:
        """Sound of (B, N) speech tokens; see `FreezeOmniCodec.decode`."""
        self.expand_global_tokens(global_tokens, len(audio_codes))
        if audio_codes.dim() != 2 or not audio_codes.shape[1]:
            raise ValueError(f"audio_codes must have the shape (batch, tokens), not {tuple(audio_codes.shape)}.")
        size = self.config.samples_per_token
        lengths = [audio_codes.shape[1]] * len(audio_codes) if code_lengths is None else code_lengths.tolist()
        audio = torch.zeros(len(audio_codes), audio_codes.shape[1] * size, device=self.device)
        for row, (codes, length) in enumerate(zip(audio_codes, lengths, strict=True)):
            self.check_codes(codes[:length])
            sound = self.inner.decode(audio_codes=codes[None, None, :length].to(self.inner.device)).audio_values
            sound = sound.reshape(-1).float()[: length * size]
            audio[row, : len(sound)] = sound.clamp(-1.0, 1.0)
        output = FreezeOmniCodecDecoderOutput(audio, size * torch.tensor(lengths))
        return output.to_tuple() if return_dict is False else output

    def decode_windows(
        self,
        codes_list: Sequence[Tensor],
        chunk_size: int,
        overlap: int,
        global_tokens: Any = None,
        first_chunk_size: int | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> list[Tensor]:
        """Decodes utterances window by window, see `streaming.decode_windows`."""
        return decode_windows(self, codes_list, chunk_size, overlap, global_tokens, first_chunk_size, max_batch_tokens)

    def open_stream(
        self, chunk_size: int = 40, overlap: int = 10, first_chunk_size: int | None = None, global_tokens: Any = None
    ) -> CodecStream:
        """The codec's side of a new conversation, see `CodecStream`."""
        return CodecStream(self, chunk_size, overlap, first_chunk_size, global_tokens)

    def expand_global_tokens(self, global_tokens: Any, batch: int) -> None:
        """A codec of another kind has no voice tokens.

        Raises:
            ValueError: some are given.
        """
        if global_tokens is not None:
            raise ValueError("This codec has no global tokens: its voice cannot be chosen.")

    def check_codes(self, audio_codes: Tensor) -> None:
        """Refuses ids outside the codebook."""
        _check_ids(audio_codes, self.config.codebook_size, "speech token")


@torch.no_grad()
def _codes_of(codec: Any, samples: Tensor) -> Tensor:
    """(1, N) codes of (1, T) samples.

    Raises:
        ValueError: the codec has several codebooks.
    """
    masks = {}
    if "padding_mask" in inspect.signature(codec.encode).parameters:
        masks["padding_mask"] = torch.ones_like(samples, dtype=torch.long)[:, None]
    codes = codec.encode(samples[:, None], **masks).audio_codes
    while codes.dim() > 2:
        axes = [axis for axis in range(1, codes.dim()) if codes.shape[axis] == 1]
        if not axes:
            raise ValueError(
                f"{type(codec).__name__} gives codes of the shape {tuple(codes.shape)}: the speech decoder says one "
                "codebook, so the codec must have one."
            )
        codes = codes.squeeze(axes[0])
    return codes


__all__ = ["FreezeOmniOtherCodec"]
