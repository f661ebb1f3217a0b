# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Configuration of the codec that turns sound into speech tokens and speech tokens into sound."""

import math
from typing import ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec


ENCODER_TYPES = ("conv", "stft")
GENERATOR_TYPES = ("hifigan", "istft")
RESIDUAL_BLOCK_TYPES = ("1", "2")


class FreezeOmniCodecConfig(PreTrainedConfig):
    """Sizes of the codec (Freeze-Omni, section 3.2: a single-codebook TiCodec, 40 tokens per second at 24 kHz).

    The defaults are the released network. The light pair, ``FreezeOmniCodecConfig(encoder_type="stft",
    generator_type="istft", num_global_tokens=0)``, has about 6 M parameters, trains and runs on a CPU.

    Args:
        sampling_rate: Samples per second of the waveform.
        codebook_size: Entries of every codebook.
        latent_size: Width of the latent vectors that are quantised.
        num_code_groups: Parts a latent is split into, each with its own codebook.
        num_residual_layers: Codebooks in a row, each quantising what the one before left over.
        codebook_loss_weight: Weight of the loss that draws codebook entries to the latents.
        commitment_loss_weight: Weight of the loss that draws latents to their codebook entries.
        num_global_tokens: Tokens that describe the speaker (one codebook each); 0 leaves the speaker out.
        global_codebook_size: Entries of each of those codebooks; None means ``codebook_size``.
        global_feature_conv: Network before those codebooks: input, hidden and output channels, kernel, stride.
        global_tokens: The default voice, ``num_global_tokens`` ids; None means all zeros.
        upsample_rates: Factors from token rate to sample rate; their product is `samples_per_token`.
        encoder_type: ``"conv"`` (released: convolutions from the samples on) or ``"stft"`` (light: ConvNeXt blocks on
            the log-magnitude spectrum).
        generator_type: ``"hifigan"`` (released) or ``"istft"`` (light: ConvNeXt blocks and an inverse Fourier
            transform, after Vocos, arXiv 2306.00814).
        upsample_kernel_sizes: Kernels of the ``hifigan`` generator's upsampling; reversed, of the ``conv`` encoder.
        upsample_initial_channel: Width of the ``hifigan`` generator before the first upsampling; each one halves it.
        resblock_type: ``"1"`` (three pairs of convolutions) or ``"2"`` (two convolutions).
        resblock_kernel_sizes: Kernels of the residual blocks that run side by side in a stage.
        resblock_dilation_sizes: Dilations of each of those blocks.
        speaker_channels: The ``hifigan`` generator adds the speaker vector after the upsampling stage that has this
            many channels; where no stage has, the speaker vector has no effect (see `speaker_stage`).
        encoder_channels: Width of the ``conv`` encoder before its first stage; each stage doubles it.
        fft_size: Window of the light pair's Fourier transforms, in samples.
        frames_per_token: Spectral frames per token of the light pair.
        stft_hidden_size: Width of the light encoder at frame rate.
        stft_frame_layers: ConvNeXt blocks of the light encoder at frame rate.
        stft_token_layers: Its blocks at token rate, of width ``istft_hidden_size``.
        istft_hidden_size: Width of the light generator.
        istft_token_layers: ConvNeXt blocks of the light generator at token rate.
        istft_frame_layers: Its blocks at frame rate.
        expansion: Hidden width of a ConvNeXt block over its width.
        token_kernel_size: Kernel of the light pair's blocks at token rate. Small, so that a token needs few
            neighbours to become sound (see `FreezeOmniCodec.context_tokens`).
        frame_kernel_size: Kernel of its blocks at frame rate.
        initializer_range: Standard deviation of the initial weights.
    """

    model_type: ClassVar[str] = "freeze_omni_codec"
    base_config_key: ClassVar[str] = "codec_config"

    sampling_rate: int = 24000
    codebook_size: int = 1024
    latent_size: int = 512
    num_code_groups: int = 1
    num_residual_layers: int = 1
    codebook_loss_weight: float = 1.0
    commitment_loss_weight: float = 0.25
    num_global_tokens: int = 8
    global_codebook_size: int | None = None
    global_feature_conv: list[int] | tuple[int, ...] = (128, 64, 128, 3, 1)
    global_tokens: list[int] | None = None
    upsample_rates: list[int] | tuple[int, ...] = (8, 5, 5, 3)
    encoder_type: str = "conv"
    generator_type: str = "hifigan"
    upsample_kernel_sizes: list[int] | tuple[int, ...] = (16, 11, 11, 5)
    upsample_initial_channel: int = 512
    resblock_type: str = "1"
    resblock_kernel_sizes: list[int] | tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: list[list[int]] | tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    speaker_channels: int = 128
    encoder_channels: int = 32
    fft_size: int = 600
    frames_per_token: int = 4
    stft_hidden_size: int = 192
    stft_frame_layers: int = 3
    stft_token_layers: int = 2
    istft_hidden_size: int = 256
    istft_token_layers: int = 4
    istft_frame_layers: int = 4
    expansion: int = 3
    token_kernel_size: int = 3
    frame_kernel_size: int = 7
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        # Lists, so that a configuration read from JSON equals the one it was written from.
        self.global_feature_conv = list(self.global_feature_conv)
        self.upsample_rates = list(self.upsample_rates)
        self.upsample_kernel_sizes = list(self.upsample_kernel_sizes)
        self.resblock_kernel_sizes = list(self.resblock_kernel_sizes)
        self.resblock_dilation_sizes = [list(dilations) for dilations in self.resblock_dilation_sizes]
        if self.encoder_type not in ENCODER_TYPES:
            raise ValueError(f"encoder_type={self.encoder_type!r} is unknown; choose one of {ENCODER_TYPES}.")
        if self.generator_type not in GENERATOR_TYPES:
            raise ValueError(f"generator_type={self.generator_type!r} is unknown; choose one of {GENERATOR_TYPES}.")
        if self.num_code_groups < 1 or self.latent_size % self.num_code_groups:
            raise ValueError(
                f"The codec's latent_size={self.latent_size} is not a multiple of "
                f"num_code_groups={self.num_code_groups}."
            )
        if self.num_residual_layers < 1:
            raise ValueError(f"num_residual_layers={self.num_residual_layers} must be at least 1.")
        self._check_speaker()
        if self.encoder_type == "conv" or self.generator_type == "hifigan":
            self._check_convolutions()
        if self.encoder_type == "conv":
            width = self.encoder_channels * 2 ** len(self.upsample_rates)
            if width != self.latent_size:
                raise ValueError(
                    f"encoder_channels={self.encoder_channels} doubled by each of {len(self.upsample_rates)} stages "
                    f"is {width}, which does not match latent_size={self.latent_size}."
                )
            if self.encoder_channels % 8:
                raise ValueError(
                    f"encoder_channels={self.encoder_channels} must be a multiple of 8: the norms of the first stage "
                    "take groups of 16 of twice as many channels."
                )
        if self.generator_type == "hifigan":
            if self.upsample_initial_channel % 2 ** len(self.upsample_rates):
                raise ValueError(
                    f"upsample_initial_channel={self.upsample_initial_channel} cannot be halved by each of "
                    f"{len(self.upsample_rates)} stages."
                )
            if (
                self.speaker_stage is not None
                and self.num_global_tokens
                and self.speaker_size != self.speaker_channels
            ):
                raise ValueError(
                    f"The output channels {self.speaker_size} of global_feature_conv={self.global_feature_conv} do "
                    f"not match speaker_channels={self.speaker_channels}, where the generator adds them."
                )
        if self.encoder_type == "stft" or self.generator_type == "istft":
            self._check_spectrum()

    def _check_speaker(self) -> None:
        if self.num_global_tokens:
            if len(self.global_feature_conv) != 5:
                raise ValueError(
                    f"global_feature_conv={self.global_feature_conv} must hold 5 numbers (input, hidden, output "
                    f"channels, kernel, stride), not {len(self.global_feature_conv)}."
                )
            if self.global_feature_conv[3] < self.global_feature_conv[4]:
                raise ValueError(
                    f"The kernel {self.global_feature_conv[3]} of global_feature_conv={self.global_feature_conv} is "
                    f"smaller than its stride {self.global_feature_conv[4]}."
                )
            if self.speaker_size % self.num_global_tokens:
                raise ValueError(
                    f"The output channels {self.speaker_size} of global_feature_conv={self.global_feature_conv} are "
                    f"not a multiple of num_global_tokens={self.num_global_tokens}."
                )
            width = self.speaker_input_size
            if self.global_feature_conv[0] != width:
                raise ValueError(
                    f"The input channels {self.global_feature_conv[0]} of "
                    f"global_feature_conv={self.global_feature_conv} do not match the {width} channels that "
                    f"encoder_type={self.encoder_type!r} feeds it."
                )
        if self.global_tokens is not None:
            self.global_tokens = list(self.global_tokens)
            if len(self.global_tokens) != self.num_global_tokens:
                raise ValueError(
                    f"global_tokens holds {len(self.global_tokens)} ids, but num_global_tokens="
                    f"{self.num_global_tokens}."
                )
            wrong = [token for token in self.global_tokens if not 0 <= token < self.num_speaker_codes]
            if wrong:
                raise ValueError(
                    f"global_tokens holds the id {wrong[0]}, outside its codebook of {self.num_speaker_codes} entries."
                )

    def _check_convolutions(self) -> None:
        if self.resblock_type not in RESIDUAL_BLOCK_TYPES:
            raise ValueError(f"resblock_type={self.resblock_type!r} is unknown; choose one of {RESIDUAL_BLOCK_TYPES}.")
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise ValueError(
                f"upsample_rates={self.upsample_rates} and upsample_kernel_sizes={self.upsample_kernel_sizes} must "
                "have the same length."
            )
        for rate, kernel in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                raise ValueError(
                    f"An upsampling kernel of {kernel} does not fit its rate {rate}: their difference must be even "
                    "and not negative, or the output would not be exactly rate times as long as the input."
                )
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise ValueError(
                f"resblock_kernel_sizes={self.resblock_kernel_sizes} and "
                f"resblock_dilation_sizes={self.resblock_dilation_sizes} must have the same length."
            )
        if any(kernel % 2 == 0 for kernel in self.resblock_kernel_sizes):
            raise ValueError(f"resblock_kernel_sizes={self.resblock_kernel_sizes} must all be odd.")
        needed = 3 if self.resblock_type == "1" else 2
        if any(len(dilations) < needed for dilations in self.resblock_dilation_sizes):
            raise ValueError(
                f"resblock_type={self.resblock_type!r} needs {needed} dilations a block, but "
                f"resblock_dilation_sizes={self.resblock_dilation_sizes}."
            )

    def _check_spectrum(self) -> None:
        if self.samples_per_token % self.frames_per_token:
            raise ValueError(
                f"samples_per_token={self.samples_per_token} (the product of upsample_rates) is not a multiple of "
                f"frames_per_token={self.frames_per_token}."
            )
        if self.fft_size < self.hop_length or (self.fft_size - self.hop_length) % 2:
            raise ValueError(
                f"fft_size={self.fft_size} must exceed the hop of {self.hop_length} samples by an even number, so "
                "that windows lie centred on their hops."
            )
        if self.token_kernel_size % 2 == 0 or self.frame_kernel_size % 2 == 0:
            raise ValueError(
                f"token_kernel_size={self.token_kernel_size} and frame_kernel_size={self.frame_kernel_size} must "
                "be odd."
            )

    @property
    def samples_per_token(self) -> int:
        """Samples of one speech token: 600 (25 ms) for the released codec."""
        return math.prod(self.upsample_rates)

    @property
    def tokens_per_second(self) -> float:
        """Speech tokens per second: 40 for the released codec."""
        return self.sampling_rate / self.samples_per_token

    @property
    def num_codebooks(self) -> int:
        """Codes of one token."""
        return self.num_code_groups * self.num_residual_layers

    @property
    def hop_length(self) -> int:
        """Samples between two spectral frames of the light pair."""
        return self.samples_per_token // self.frames_per_token

    @property
    def num_speaker_codes(self) -> int:
        """Entries of each codebook of the global tokens."""
        return self.codebook_size if self.global_codebook_size is None else self.global_codebook_size

    @property
    def speaker_size(self) -> int:
        """Width of the speaker vector, 0 without one."""
        return self.global_feature_conv[2] if self.num_global_tokens else 0

    @property
    def speaker_input_size(self) -> int:
        """Channels of the encoder where the speaker network branches off: half way, or the spectral frames."""
        if self.encoder_type == "stft":
            return self.stft_hidden_size
        return self.encoder_channels * 2 ** (len(self.upsample_rates) // 2)

    @property
    def speaker_stage(self) -> int | None:
        """Upsampling stage of the ``hifigan`` generator after which the speaker vector is added; None for nowhere."""
        for stage in range(len(self.upsample_rates)):
            if self.upsample_initial_channel >> (stage + 1) == self.speaker_channels:
                return stage
        return None


class FreezeOmniOtherCodecConfig(PreTrainedConfig):
    """A codec of another architecture in the place of ours: one codebook, loaded by `AutoModelForAudioTokenization`.

    Args:
        inner_config: Its own configuration.
        sampling_rate: Samples per second.
        codebook_size: Entries of its codebook.
        samples_per_token: Samples of one speech token.
        context_tokens: Tokens of context on each side of a window of a stream.
    """

    model_type: ClassVar[str] = "freeze_omni_other_codec"
    base_config_key: ClassVar[str] = "codec_config"
    sub_configs_defaults: ClassVar[dict] = {"inner_config": SubConfigSpec(AutoConfig, model_type="dac")}

    inner_config: dict | PreTrainedConfig | None = None
    sampling_rate: int = 24000
    codebook_size: int = 1024
    samples_per_token: int = 600
    context_tokens: int = 10

    # What our own codec says too.
    num_codebooks = property(lambda self: 1)
    num_global_tokens = property(lambda self: 0)

    @property
    def tokens_per_second(self) -> float:
        """Speech tokens per second."""
        return self.sampling_rate / self.samples_per_token


# The whole model's configuration finds its codec's by these names.
for _config in (FreezeOmniCodecConfig, FreezeOmniOtherCodecConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)


__all__ = ["FreezeOmniCodecConfig", "FreezeOmniOtherCodecConfig"]
