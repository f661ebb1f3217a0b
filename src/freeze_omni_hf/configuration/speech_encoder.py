# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Configuration of the chunk-streaming speech encoder."""

from typing import ClassVar

from transformers import PreTrainedConfig


POSITION_RULES = ("relative", "absolute", "released", "additive")
SUBSAMPLINGS = ("conv2d", "conv1d")


class FreezeOmniSpeechEncoderConfig(PreTrainedConfig):
    """Sizes and rules of the speech encoder (Freeze-Omni, section 3.1).

    Args:
        num_mel_bins: Log-mel bins of one input frame.
        hidden_size: Width of the Transformer layers.
        num_hidden_layers: Number of Transformer layers.
        num_attention_heads: Attention heads of a layer.
        intermediate_size: Width of the feed-forward network.
        subsampling: ``"conv2d"`` (two 3×3 convolutions of stride 2: a frame is 40 ms) or ``"conv1d"`` (Whisper's two
            convolutions along time, the second of stride 2: a frame is 20 ms).
        hidden_act: ``"relu"`` or ``"gelu"`` in the feed-forward networks.
        input_layer: ``"linear"`` (linear, layer norm, ReLU after the subsampling) or ``"none"``.
        normalize_before: Layer norm before (True) or after each residual branch.
        concat_after: Join attention input and output with a linear layer instead of a plain residual.
        chunk_size: Encoder frames of one chunk; frames of a chunk see each other. ``-1``: the whole
            utterance is one chunk (no streaming).
        left_chunks: Number of earlier chunks a frame may attend to; ``-1`` means all of them.
        dynamic_chunks: In training, draw one chunk size and left context per batch instead of the fixed ones.
        position_rule: How a key's position enters the score. ``"relative"``: distance between query and key;
            ``"absolute"``: index of the key in the utterance; ``"released"``: the rule that the released weights were
            used with, whose index lags one chunk once the left context is full; ``"additive"``: no term in the score,
            Whisper's sinusoids are added to the frames.
        max_positions: Size of the position table of the released rule.
        hidden_dropout: Dropout after attention and feed-forward.
        attention_dropout: Dropout on attention weights.
        activation_dropout: Dropout inside the feed-forward network.
        layer_norm_eps: Epsilon of the layer norms.
        ctc_vocab_size: Classes of the CTC head of training stage input 1, blank included (class 0).
        initializer_range: Standard deviation of the initial weights.
    """

    model_type: ClassVar[str] = "freeze_omni_speech_encoder"
    base_config_key: ClassVar[str] = "speech_encoder_config"

    num_mel_bins: int = 80
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    subsampling: str = "conv2d"
    hidden_act: str = "relu"
    input_layer: str = "linear"
    normalize_before: bool = True
    concat_after: bool = False
    chunk_size: int = 4
    left_chunks: int = 16
    dynamic_chunks: bool = False
    position_rule: str = "relative"
    max_positions: int = 5000
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.1
    layer_norm_eps: float = 1e-5
    ctc_vocab_size: int | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"The speech encoder's hidden_size={self.hidden_size} is not a multiple of its "
                f"num_attention_heads={self.num_attention_heads}."
            )
        if self.position_rule not in POSITION_RULES:
            raise ValueError(f"position_rule={self.position_rule!r} is unknown; choose one of {POSITION_RULES}.")
        if self.subsampling not in SUBSAMPLINGS:
            raise ValueError(f"subsampling={self.subsampling!r} is unknown; choose one of {SUBSAMPLINGS}.")
        if self.hidden_act not in ("relu", "gelu"):
            raise ValueError(f"hidden_act={self.hidden_act!r} is unknown; choose 'relu' or 'gelu'.")
        if self.input_layer not in ("linear", "none"):
            raise ValueError(f"input_layer={self.input_layer!r} is unknown; choose 'linear' or 'none'.")
        if self.chunk_size == 0 or self.chunk_size < -1:
            raise ValueError(f"chunk_size={self.chunk_size} must be positive, or -1 for the whole utterance.")
        if self.left_chunks < -1:
            raise ValueError(f"left_chunks={self.left_chunks} must not be below -1 (-1 means all earlier chunks).")
        if self.position_rule == "released" and (self.chunk_size < 1 or self.left_chunks < 1):
            raise ValueError(
                "position_rule='released' needs a fixed window: "
                f"chunk_size={self.chunk_size} and left_chunks={self.left_chunks} must both be positive."
            )

    @property
    def subsampling_factor(self) -> int:
        """Input frames (10 ms) per encoder frame."""
        return 4 if self.subsampling == "conv2d" else 2

    @property
    def overlap_frames(self) -> int:
        """Earlier input frames that the subsampling still needs: receptive field 7 and stride 4, or 5 and 2."""
        return 3

    @property
    def chunk_frames(self) -> int:
        """Input frames (10 ms each) of one chunk."""
        return max(self.chunk_size, 1) * self.subsampling_factor

    @property
    def left_context(self) -> int:
        """Encoder frames kept as left context, -1 for all."""
        return -1 if self.left_chunks < 0 or self.chunk_size < 0 else self.left_chunks * self.chunk_size


__all__ = ["FreezeOmniSpeechEncoderConfig"]
