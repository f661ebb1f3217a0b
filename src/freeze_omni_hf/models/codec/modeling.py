# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The codec: waveform to speech tokens, speech tokens to waveform."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedAudioTokenizerBase
from transformers.utils import ModelOutput, can_return_tuple

from ...configuration.codec import FreezeOmniCodecConfig
from .conv_encoder import FreezeOmniConvEncoder
from .hifigan import FreezeOmniHifiGanGenerator
from .light import FreezeOmniConvNextBlock, FreezeOmniIstftGenerator, FreezeOmniStftEncoder
from .masking import length_mask
from .quantizer import FreezeOmniQuantizer
from .streaming import MAX_BATCH_TOKENS, CodecStream, decode_windows


@dataclass
class FreezeOmniCodecEncoderOutput(ModelOutput):
    """
    Args:
        audio_codes: (B, N) speech tokens, (B, N, num_codebooks) where there are several; 0 after the end of a row.
        global_tokens: (B, G) speaker tokens, None for a codec without them.
        code_lengths: (B,) tokens of each row.
    """

    audio_codes: torch.LongTensor | None = None
    global_tokens: torch.LongTensor | None = None
    code_lengths: torch.LongTensor | None = None


@dataclass
class FreezeOmniCodecDecoderOutput(ModelOutput):
    """
    Args:
        audio_values: (B, N * samples_per_token) float32 samples in [-1, 1]; 0 after the end of a row.
        audio_lengths: (B,) samples of each row.
    """

    audio_values: torch.FloatTensor | None = None
    audio_lengths: torch.LongTensor | None = None


@dataclass
class FreezeOmniCodecOutput(ModelOutput):
    """
    Args:
        quantizer_loss: Weighted sum of the next two.
        codebook_loss: Draws codebook entries to the latents; speech and speaker tokens together.
        commitment_loss: Draws latents to codebook entries, likewise.
        audio_values: (B, N * samples_per_token) reconstructed samples; 0 after the end of a row.
        audio_lengths: (B,) samples of each row.
        audio_codes: (B, N) speech tokens, (B, N, num_codebooks) where there are several; 0 after the end of a row.
        global_tokens: (B, G) speaker tokens, or None.
        code_lengths: (B,) tokens of each row.
        latents: (B, N, D) what was quantised.
        quantized: (B, N, D) codebook vectors; gradients pass straight through to the latents.
    """

    quantizer_loss: torch.FloatTensor | None = None
    codebook_loss: torch.FloatTensor | None = None
    commitment_loss: torch.FloatTensor | None = None
    audio_values: torch.FloatTensor | None = None
    audio_lengths: torch.LongTensor | None = None
    audio_codes: torch.LongTensor | None = None
    global_tokens: torch.LongTensor | None = None
    code_lengths: torch.LongTensor | None = None
    latents: torch.FloatTensor | None = None
    quantized: torch.FloatTensor | None = None


class FreezeOmniCodec(PreTrainedAudioTokenizerBase):
    """Codec of Freeze-Omni (section 3.2): TiCodec with one codebook, or a light network of the same interface.

    A row of a padded batch gives what it gives alone. Sound after the last whole token of a row is dropped.
    """

    config: FreezeOmniCodecConfig
    base_model_prefix = "codec"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    output_modalities = ("audio",)
    _no_split_modules = ["FreezeOmniResidualBlock", "FreezeOmniConvNextBlock"]

    def __init__(self, config: FreezeOmniCodecConfig):
        super().__init__(config)
        self.encoder = (
            FreezeOmniConvEncoder(config) if config.encoder_type == "conv" else FreezeOmniStftEncoder(config)
        )
        self.quantizer = FreezeOmniQuantizer(config)
        self.generator = (
            FreezeOmniHifiGanGenerator(config)
            if config.generator_type == "hifigan"
            else FreezeOmniIstftGenerator(config)
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FreezeOmniConvNextBlock):
            init.ones_(module.scale)

    @property
    def context_tokens(self) -> int:
        """Tokens to either side that the sound of a token depends on; an overlap of as many makes windows exact."""
        return self.generator.context_tokens

    @torch.no_grad()
    @can_return_tuple
    def encode(
        self, input_values: torch.Tensor, padding_mask: torch.Tensor | None = None
    ) -> FreezeOmniCodecEncoderOutput:
        """Speech tokens of sound.

        Args:
            input_values: (B, T) or (B, 1, T) samples at ``config.sampling_rate``.
            padding_mask: (B, T), 1 for samples and 0 for the padding after them; None where all rows are T long.

        Raises:
            ValueError: not mono, shorter than one token, not finite, or padded on the left.
        """
        input_values, lengths = self._check_audio(input_values, padding_mask)
        latents, speaker = self.encoder(input_values, lengths)
        codes = self.quantizer(latents.transpose(1, 2)).codes
        code_lengths = self._code_lengths(codes, lengths)
        global_tokens = None if speaker is None else self.quantizer.quantize_global(speaker).codes
        return FreezeOmniCodecEncoderOutput(self._finish_codes(codes, code_lengths), global_tokens, code_lengths)

    @can_return_tuple
    def decode(
        self,
        audio_codes: torch.Tensor,
        global_tokens: torch.Tensor | Sequence[int] | None = None,
        code_lengths: torch.Tensor | None = None,
    ) -> FreezeOmniCodecDecoderOutput:
        """Sound of speech tokens.

        Args:
            audio_codes: (B, N) tokens, or (B, N, num_codebooks).
            global_tokens: Voice (G,) of all rows or (B, G) of each; None for the default voice of the configuration.
            code_lengths: (B,) tokens of each row of a padded batch; what stands after them is not read.

        Raises:
            ValueError: wrong shape, no token, or an id outside the codebook.
        """
        if audio_codes.dim() == 2 and self.config.num_codebooks == 1:
            audio_codes = audio_codes[..., None]
        if audio_codes.dim() != 3 or audio_codes.shape[-1] != self.config.num_codebooks:
            raise ValueError(
                f"audio_codes must have the shape (batch, tokens{self._codebook_text()}), not "
                f"{tuple(audio_codes.shape)}."
            )
        batch, size = audio_codes.shape[:2]
        if size == 0:
            raise ValueError("audio_codes is empty: there is nothing to decode.")
        audio_codes = audio_codes.to(self.device)
        valid_lengths = torch.full((batch,), size, device=self.device)
        if code_lengths is not None:
            valid_lengths = code_lengths.to(self.device)
            code_lengths = self._check_lengths(valid_lengths, batch, size, 1, "code_lengths", "tokens")
        if code_lengths is not None:
            audio_codes = audio_codes.masked_fill(~length_mask(code_lengths, size)[..., None], 0)
        self.check_codes(audio_codes)
        global_tokens = self.expand_global_tokens(global_tokens, batch)
        speaker = None if global_tokens is None else self.quantizer.embed_global(global_tokens)
        audio = self.synthesize(self.quantizer.embed(audio_codes), speaker, code_lengths)
        return FreezeOmniCodecDecoderOutput(
            audio.float().clamp(-1.0, 1.0), valid_lengths * self.config.samples_per_token
        )

    def synthesize(
        self, quantized: torch.Tensor, speaker: torch.Tensor | None = None, code_lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Samples (B, N * samples_per_token) of latents (B, N, D) and speaker vectors (B, S)."""
        return self.generator(quantized.transpose(1, 2), speaker, code_lengths)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        piece_starts: torch.Tensor | None = None,
        piece_size: int | None = None,
        quantize: bool = True,
    ) -> FreezeOmniCodecOutput:
        """Encodes, quantises and decodes with gradients; reconstruction losses are up to the training script.

        Args:
            input_values: (B, T) or (B, 1, T) samples at ``config.sampling_rate``.
            padding_mask: (B, T), 1 for samples and 0 for the padding after them; None where all rows are T long.
            piece_starts: (B,) token of each row from which on it is decoded; by default all of it is.
            piece_size: Tokens of the piece, at most N. ``audio_values`` and ``audio_lengths`` are the piece's.
            quantize: False makes sound of the latents themselves, as at the start of training.
        """
        input_values, lengths = self._check_audio(input_values, padding_mask)
        latents, speaker = self.encoder(input_values, lengths)
        latents = latents.transpose(1, 2)
        code_lengths = self._code_lengths(latents, lengths)
        padded_lengths = None if lengths is None else code_lengths
        mask = None if lengths is None else length_mask(code_lengths, latents.shape[1])
        quantized = self.quantizer(latents, mask)
        codebook_loss, commitment_loss = quantized.codebook_loss, quantized.commitment_loss
        global_tokens = None
        if speaker is not None:
            voice = self.quantizer.quantize_global(speaker)
            speaker, global_tokens = voice.quantized, voice.codes
            codebook_loss = codebook_loss + voice.codebook_loss
            commitment_loss = commitment_loss + voice.commitment_loss
        vectors = quantized.quantized if quantize else latents
        heard, heard_lengths = vectors, code_lengths
        if piece_starts is not None:
            places = piece_starts[:, None] + torch.arange(piece_size, device=heard.device)
            heard = heard.gather(1, places[..., None].expand(-1, -1, heard.shape[-1]))
            heard_lengths = (code_lengths - piece_starts).clamp(max=piece_size)
            padded_lengths = None if lengths is None else heard_lengths
        return FreezeOmniCodecOutput(
            quantizer_loss=self.config.codebook_loss_weight * codebook_loss
            + self.config.commitment_loss_weight * commitment_loss,
            codebook_loss=codebook_loss,
            commitment_loss=commitment_loss,
            audio_values=self.synthesize(heard, speaker, padded_lengths),
            audio_lengths=heard_lengths * self.config.samples_per_token,
            audio_codes=self._finish_codes(quantized.codes, code_lengths),
            global_tokens=global_tokens,
            code_lengths=code_lengths,
            latents=latents,
            quantized=vectors,
        )

    def decode_windows(
        self,
        codes_list: Sequence[torch.Tensor],
        chunk_size: int,
        overlap: int,
        global_tokens: torch.Tensor | Sequence[int] | None = None,
        first_chunk_size: int | None = None,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> list[torch.Tensor]:
        """Decodes utterances window by window, see `streaming.decode_windows`."""
        return decode_windows(self, codes_list, chunk_size, overlap, global_tokens, first_chunk_size, max_batch_tokens)

    def open_stream(
        self,
        chunk_size: int = 40,
        overlap: int = 10,
        first_chunk_size: int | None = None,
        global_tokens: torch.Tensor | Sequence[int] | None = None,
    ) -> CodecStream:
        """The codec's side of a new conversation, see `CodecStream`."""
        return CodecStream(self, chunk_size, overlap, first_chunk_size, global_tokens)

    def expand_global_tokens(
        self, global_tokens: torch.Tensor | Sequence[int] | None, batch: int
    ) -> torch.LongTensor | None:
        """Voice of each of ``batch`` rows (B, G) from a voice (G,) or (B, G), or from the default voice.

        Returns:
            None for a codec without speaker tokens.

        Raises:
            ValueError: wrong number of tokens, or an id outside the codebook.
        """
        size = self.config.num_global_tokens
        if size == 0:
            return None
        if global_tokens is None:
            global_tokens = [0] * size if self.config.global_tokens is None else self.config.global_tokens
        global_tokens = torch.as_tensor(global_tokens, device=self.device)
        if global_tokens.dim() == 1:
            global_tokens = global_tokens[None].expand(batch, -1)
        if global_tokens.shape != (batch, size):
            raise ValueError(
                f"global_tokens must have the shape ({size},) or ({batch}, {size}), not {tuple(global_tokens.shape)}."
            )
        _check_ids(global_tokens, self.config.num_speaker_codes, "global token")
        return global_tokens

    def check_codes(self, audio_codes: torch.Tensor) -> None:
        """Refuses ids outside the codebook.

        Raises:
            ValueError: names the id and the size of the codebook.
        """
        _check_ids(audio_codes, self.config.codebook_size, "speech token")

    def _check_audio(
        self, input_values: torch.Tensor, padding_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Samples (B, T) in the model's type, and their lengths (B,) if some row is padded."""
        if input_values.dim() == 3:
            if input_values.shape[1] != 1:
                raise ValueError(
                    f"The codec takes mono sound of shape (batch, samples) or (batch, 1, samples), but input_values "
                    f"has {input_values.shape[1]} channels: {tuple(input_values.shape)}."
                )
            input_values = input_values[:, 0]
        if input_values.dim() != 2:
            raise ValueError(
                f"input_values must have the shape (batch, samples) or (batch, 1, samples), not "
                f"{tuple(input_values.shape)}."
            )
        batch, size = input_values.shape
        if size < self.config.samples_per_token:
            raise ValueError(
                f"input_values holds {size} samples, less than one token of {self.config.samples_per_token} samples."
            )
        lengths = None
        if padding_mask is not None:
            padding_mask = padding_mask.to(self.device)
            if padding_mask.dim() == 3:
                padding_mask = padding_mask[:, 0]
            if padding_mask.shape != (batch, size):
                raise ValueError(
                    f"padding_mask has the shape {tuple(padding_mask.shape)}, but input_values has ({batch}, {size})."
                )
            lengths = padding_mask.long().sum(dim=1)
            if not torch.compiler.is_compiling() and not torch.equal(length_mask(lengths, size), padding_mask.bool()):
                raise ValueError("padding_mask must be 1 for the samples of a row and 0 after them (right padding).")
            lengths = self._check_lengths(
                lengths, batch, size, self.config.samples_per_token, "padding_mask", "samples"
            )
        input_values = input_values.to(self.device, self.dtype)
        if lengths is not None:
            input_values = input_values.masked_fill(~length_mask(lengths, size), 0.0)
        if not torch.compiler.is_compiling() and not torch.isfinite(input_values).all():
            raise ValueError("input_values holds NaN or infinite samples.")
        return input_values, lengths

    def _check_lengths(
        self, lengths: torch.Tensor, batch: int, size: int, smallest: int, name: str, unit: str
    ) -> torch.Tensor | None:
        """The lengths (B,), or None where every row is full."""
        if lengths.shape != (batch,):
            raise ValueError(f"{name} gives lengths of shape {tuple(lengths.shape)} for a batch of {batch}.")
        if torch.compiler.is_compiling():
            return lengths
        low, high = int(lengths.min()), int(lengths.max())
        if low < smallest or high > size:
            raise ValueError(
                f"{name} gives a row of {low if low < smallest else high} {unit}; rows must have {smallest} to {size}."
            )
        return None if low == size else lengths

    def _code_lengths(self, steps: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        if lengths is None:
            return torch.full(steps.shape[:1], steps.shape[1], dtype=torch.long, device=steps.device)
        return lengths // self.config.samples_per_token

    def _finish_codes(self, codes: torch.Tensor, code_lengths: torch.Tensor) -> torch.Tensor:
        """Zeros after the end of each row; no codebook axis where there is only one."""
        codes = codes.masked_fill(~length_mask(code_lengths, codes.shape[1])[..., None], 0)
        return codes[..., 0] if self.config.num_codebooks == 1 else codes

    def _codebook_text(self) -> str:
        return "" if self.config.num_codebooks == 1 else f", {self.config.num_codebooks}"


def _check_ids(ids: torch.Tensor, size: int, name: str) -> None:
    if ids.is_floating_point():
        raise ValueError(f"A {name} is an integer, but the tensor is {ids.dtype}.")
    if ids.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= size:
        raise ValueError(
            f"The {name} id {low if low < 0 else high} is outside the codebook of {size} entries (0 to {size - 1})."
        )


__all__ = [
    "FreezeOmniCodec",
    "FreezeOmniCodecDecoderOutput",
    "FreezeOmniCodecEncoderOutput",
    "FreezeOmniCodecOutput",
]
