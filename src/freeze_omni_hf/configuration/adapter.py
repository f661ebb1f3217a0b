# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Configuration of the adapter between the speech encoder and the LLM."""

from typing import ClassVar

from transformers import PreTrainedConfig


ADAPTER_TYPES = ("subsampling", "cnn", "linear")


class FreezeOmniAdapterConfig(PreTrainedConfig):
    """Sizes of the adapter that carries encoder frames into the LLM's embedding space (Freeze-Omni, section 3.1).

    Args:
        adapter_type: ``"subsampling"`` (causal convolutions, the last with stride 2; the released kind), ``"cnn"``
            (two causal convolutions, no stride) or ``"linear"``.
        input_size: Width of the speech encoder.
        output_size: Width of the LLM.
        stack_frames: Encoder frames that are joined to one wide frame first (2 for an encoder of 50 frames a second).
        num_convs: Convolutions of the subsampling kind, 1 or 2. The first doubles the width, the second doubles it
            again.
        kernel_size: Kernel of the convolutions.
        conv_size: Width behind the strided convolution; by default twice that of its input, as released.
        num_blocks: Residual blocks of causal convolutions behind the strided one, which know words where an encoder
            knows sounds (ours; none in the released model).
        block_kernel_size: Kernel of their depthwise convolutions.
        block_expansion: Width inside a block, as a multiple of ``conv_size``.
        gate: Also say of each vector whether a text token is heard in it. The LLM then reads those vectors alone, so
            that what it reads is as dense as text (ours; the released model reads all).
        token_mixture: What the LLM reads is a mixture of its own token embeddings, weighted by how similar a vector is
            to each, so that it never reads what could not be text (ours, after arXiv 2502.01341).
        spelling_size: Width of a vector that says which letters are heard. Tokens of a mixture are told apart by it
            too, so that a word which was seldom heard in training is found by its letters; 0: by embeddings alone.
        letters: Also say which letter is heard in each encoder frame: a second opinion for hearing by search
            (``hearing_beams`` of the generation settings).
        num_tokens: Tokens in the mixture; set with the tokens (`FreezeOmniAdapter.set_tokens`).
        norm: ``"layer"`` or ``"batch"``, used by the subsampling kind with one convolution; the others use batch norm.
        hidden_act: ``"gelu"`` or ``"relu"``, likewise.
        norm_eps: Epsilon of the norms.
        batch_norm_momentum: Weight of the newest batch in the running statistics.
        initializer_range: Standard deviation of the initial weights.
    """

    model_type: ClassVar[str] = "freeze_omni_adapter"
    base_config_key: ClassVar[str] = "adapter_config"

    adapter_type: str = "subsampling"
    input_size: int = 1024
    output_size: int = 3584
    stack_frames: int = 1
    num_convs: int = 1
    kernel_size: int = 5
    conv_size: int | None = None
    num_blocks: int = 0
    block_kernel_size: int = 7
    block_expansion: int = 3
    gate: bool = False
    token_mixture: bool = False
    spelling_size: int = 0
    letters: bool = False
    num_tokens: int = 0
    norm: str = "layer"
    hidden_act: str = "gelu"
    norm_eps: float = 1e-3
    batch_norm_momentum: float = 0.1
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.adapter_type not in ADAPTER_TYPES:
            raise ValueError(f"adapter_type={self.adapter_type!r} is unknown; choose one of {ADAPTER_TYPES}.")
        if self.stack_frames < 1:
            raise ValueError(f"stack_frames={self.stack_frames} must be at least 1.")
        if self.num_convs not in (1, 2):
            raise ValueError(f"num_convs={self.num_convs} must be 1 or 2.")
        if self.kernel_size < 2:
            raise ValueError(f"kernel_size={self.kernel_size} must be at least 2 for a streaming convolution.")
        if self.spelling_size and not self.token_mixture:
            raise ValueError(f"spelling_size={self.spelling_size} needs token_mixture=True.")
        if self.letters and not self.token_mixture:
            raise ValueError("letters=True needs token_mixture=True.")
        if self.block_kernel_size < 2:
            raise ValueError(f"block_kernel_size={self.block_kernel_size} must be at least 2.")
        if self.num_blocks and (self.adapter_type != "subsampling" or self.num_convs != 1):
            raise ValueError("num_blocks needs the adapter type 'subsampling' with num_convs=1.")
        if self.norm not in ("layer", "batch") or self.hidden_act not in ("gelu", "relu"):
            raise ValueError(
                f"norm={self.norm!r} must be 'layer' or 'batch', hidden_act={self.hidden_act!r} 'gelu' or 'relu'."
            )

    @property
    def stride(self) -> int:
        """Encoder frames per output vector."""
        return self.stack_frames * (2 if self.adapter_type == "subsampling" else 1)


__all__ = ["FreezeOmniAdapterConfig"]
