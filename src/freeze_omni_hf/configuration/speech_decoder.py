# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Configuration of the speech decoder."""

from typing import ClassVar

from transformers import PreTrainedConfig


class FreezeOmniSpeechDecoderConfig(PreTrainedConfig):
    """Sizes of the speech decoder: pre-network, prefix layers and autoregressive layers (Freeze-Omni, section 3.2).

    Args:
        llm_hidden_size: Width of the LLM whose embeddings and hidden states are read.
        hidden_size: Width of the decoder. Where it divides ``llm_hidden_size``, one LLM vector is viewed as
            ``llm_hidden_size / hidden_size`` decoder positions; otherwise it is projected to one position.
        project_inputs: Project also where the widths divide.
        intermediate_size: Width of the gated feed-forward networks.
        num_attention_heads: Attention heads of a layer.
        num_hidden_layers: Autoregressive layers; there are as many prefix layers.
        num_pre_layers: Bidirectional layers over the text embeddings; 0 leaves the pre-network out.
        use_prefix: Whether the LLM's hidden states enter as a prefix in the key-value cache.
        codebook_size: Number of speech codes. Four ids follow: start of text, start of speech, end of speech,
            padding.
        letters: Read the text letter by letter, and keep the place in it (ours, see `LetterReader`).
        num_tokens: Ids of the LLM's tokenizer, for ``letters``.
        hidden_dropout: Dropout on the inputs of the autoregressive layers.
        attention_dropout: Dropout on attention weights.
        rms_norm_eps: Epsilon of the norms.
        rope_theta: Base of the rotary positions.
        initializer_range: Standard deviation of the initial weights.
    """

    model_type: ClassVar[str] = "freeze_omni_speech_decoder"
    base_config_key: ClassVar[str] = "speech_decoder_config"

    llm_hidden_size: int = 3584
    hidden_size: int = 896
    project_inputs: bool = False
    intermediate_size: int = 4864
    num_attention_heads: int = 14
    num_hidden_layers: int = 4
    num_pre_layers: int = 2
    use_prefix: bool = True
    codebook_size: int = 1024
    letters: bool = False
    num_tokens: int = 0
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.hidden_size % self.num_attention_heads or (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError(
                f"The speech decoder's hidden_size={self.hidden_size} must give an even width to each of its "
                f"num_attention_heads={self.num_attention_heads}."
            )
        if self.letters and (not self.uses_projection or self.num_tokens < 1):
            raise ValueError(
                "A speech decoder with letters needs num_tokens, and project_inputs where its hidden_size divides "
                f"llm_hidden_size={self.llm_hidden_size}."
            )

    # What transformers' Llama layers read beside the sizes.
    num_key_value_heads = property(lambda self: self.num_attention_heads)
    head_dim = property(lambda self: self.hidden_size // self.num_attention_heads)
    attention_bias = property(lambda self: False)
    mlp_bias = property(lambda self: False)
    hidden_act = property(lambda self: "silu")

    @property
    def vocab_size(self) -> int:
        """Speech codes and the four special ids."""
        return self.codebook_size + 4

    @property
    def text_start_token_id(self) -> int:
        return self.codebook_size

    @property
    def bos_speech_token_id(self) -> int:
        return self.codebook_size + 1

    @property
    def eos_speech_token_id(self) -> int:
        return self.codebook_size + 2

    @property
    def pad_speech_token_id(self) -> int:
        return self.codebook_size + 3

    @property
    def uses_projection(self) -> bool:
        """Whether LLM vectors are projected (True) or viewed as several positions."""
        return self.project_inputs or self.llm_hidden_size % self.hidden_size != 0

    @property
    def rows_per_token(self) -> int:
        """Decoder positions that one LLM vector takes."""
        return 1 if self.uses_projection else self.llm_hidden_size // self.hidden_size


__all__ = ["FreezeOmniSpeechDecoderConfig"]
