# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Configuration of the whole model: one sub-config a part, and the frozen LLM by reference."""

import copy
from typing import ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .adapter import FreezeOmniAdapterConfig
from .codec import FreezeOmniCodecConfig
from .speech_decoder import FreezeOmniSpeechDecoderConfig
from .speech_encoder import FreezeOmniSpeechEncoderConfig


class FreezeOmniConfig(PreTrainedConfig):
    """Configuration of `FreezeOmniForConditionalGeneration` (arXiv 2411.00774).

    Args:
        speech_encoder_config: Speech encoder.
        adapter_config: Adapter into the LLM's embedding space.
        text_config: The frozen LLM: the configuration of any causal language model.
        speech_decoder_config: Speech decoder; None for a model that only hears.
        codec_config: Codec, ours or another (`FreezeOmniOtherCodecConfig`); None together with the speech decoder.
        prompt_length: Learned prompt embeddings put before the audio of every user turn.
        num_tasks: Rows of the task embedding table (transcription and other tasks of training stage input 2).
        num_states: Classes of the state head; the last one is padding and never predicted. 0 leaves the head out.
        state_threshold: Probability above which a state ends the user's turn.
        audio_token_id: Placeholder id of the vectors that stand for audio in ``input_ids``.
        llm_name_or_path: Where the LLM comes from: a folder, a name in the user's cache, or a Hub id.
        llm_revision: Commit of the Hub repository.
        llm_fingerprint: Short digest of the LLM's weights at training time.
        llm_saved: True when this checkpoint holds the LLM too (`export_full`).
        lm_loss_weight: Weight of the cross-entropy in ``forward`` where a distillation target is given too.
        state_loss_weight: Weight of the state loss in ``forward``.
        distillation_weight: Weight of the distillation loss in ``forward``.
        distillation_temperature: Temperature of both distributions in the distillation loss.
        initializer_range: Standard deviation of the initial weights.
    """

    model_type: ClassVar[str] = "freeze_omni"
    sub_configs_defaults: ClassVar[dict] = {
        "speech_encoder_config": FreezeOmniSpeechEncoderConfig,
        "adapter_config": FreezeOmniAdapterConfig,
        "text_config": SubConfigSpec(AutoConfig, model_type="qwen2"),
        "speech_decoder_config": SubConfigSpec(FreezeOmniSpeechDecoderConfig, optional=True),
        "codec_config": SubConfigSpec(AutoConfig, model_type=FreezeOmniCodecConfig.model_type, optional=True),
    }

    speech_encoder_config: dict | PreTrainedConfig | None = None
    adapter_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    speech_decoder_config: dict | PreTrainedConfig | None = None
    codec_config: dict | PreTrainedConfig | None = None
    prompt_length: int = 25
    num_tasks: int = 20
    num_states: int = 4
    state_threshold: float = 0.5
    audio_token_id: int | None = None
    llm_name_or_path: str | None = None
    llm_revision: str | None = None
    llm_fingerprint: str | None = None
    llm_saved: bool = False
    lm_loss_weight: float = 1.0
    state_loss_weight: float = 1.0
    distillation_weight: float = 1.0
    distillation_temperature: float = 1.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        if isinstance(self.text_config, PreTrainedConfig):
            # A loaded LLM keeps its configuration to itself: building the model would change its attention.
            self.text_config = copy.deepcopy(self.text_config)
        super().__post_init__(**kwargs)
        text = self.get_text_config()
        _refuse_mismatch(
            ("adapter_config.input_size", self.adapter_config.input_size),
            ("speech_encoder_config.hidden_size", self.speech_encoder_config.hidden_size),
        )
        _refuse_mismatch(
            ("adapter_config.output_size", self.adapter_config.output_size),
            ("text_config.hidden_size", text.hidden_size),
        )
        if (self.speech_decoder_config is None) != (self.codec_config is None):
            given = "codec_config" if self.speech_decoder_config is None else "speech_decoder_config"
            raise ValueError(
                f"Only {given} is given: a voice needs speech_decoder_config and codec_config, a model without a "
                "voice neither."
            )
        if self.speech_decoder_config is not None:
            _refuse_mismatch(
                ("speech_decoder_config.llm_hidden_size", self.speech_decoder_config.llm_hidden_size),
                ("text_config.hidden_size", text.hidden_size),
            )
            _refuse_mismatch(
                ("speech_decoder_config.codebook_size", self.speech_decoder_config.codebook_size),
                ("codec_config.codebook_size", self.codec_config.codebook_size),
            )
        if 0 < self.num_states < 4:
            raise ValueError(
                f"num_states={self.num_states} is too small: keep listening, answer, ignore and one padding class "
                "make 4; 0 leaves the state head out."
            )
        chunk_size, stride = self.speech_encoder_config.chunk_size, self.adapter_config.stride
        if chunk_size > 0 and chunk_size % stride:
            raise ValueError(
                f"speech_encoder_config.chunk_size={chunk_size} is not a multiple of the adapter's stride {stride}: "
                "the stride's phase would change from chunk to chunk."
            )
        if self.audio_token_id is None:
            self.audio_token_id = text.vocab_size

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The configuration that holds the LLM's sizes (the text part, if the LLM is itself composite)."""
        return self.text_config.get_text_config(decoder=True)

    @property
    def has_voice(self) -> bool:
        """Whether the model can answer with sound."""
        return self.speech_decoder_config is not None


def _refuse_mismatch(first: tuple[str, int], second: tuple[str, int]) -> None:
    if first[1] != second[1]:
        raise ValueError(f"{first[0]}={first[1]} does not match {second[0]}={second[1]}; both must be equal.")


__all__ = ["FreezeOmniConfig"]
