# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Generation settings: those of transformers for the text, and the voice's own."""

import copy
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig


# Setting, default. Names beginning with "hearing_" find the words of speech, "segment_" end pieces of text, "speech_"
# choose speech tokens, "codec_" make sound.
SPEECH_DEFAULTS: dict[str, Any] = {
    "hearing_beams": 1,
    "hearing_candidates": 40,
    "hearing_llm_weight": 0.4,
    "hearing_letter_weight": 0.5,
    "hearing_token_bonus": 1.5,
    "top_p_rule": "inclusive",
    "segment_policy": "sentence",
    "segment_min_tokens": 2,
    "segment_first_max_tokens": 12,
    "segment_soft_after_tokens": 20,
    "segment_text_cleaner": None,
    "segment_border_token_ids": [],
    "segment_soft_border_token_ids": [],
    "segment_dot_token_ids": [],
    "segment_digit_token_ids": [],
    "segment_silent_token_ids": [],
    "speech_do_sample": None,
    "speech_temperature": 1.0,
    "speech_top_k": 2,
    "speech_penalty": 1.0,
    "speech_penalty_window": -1,
    "speech_penalty_rule": "standard",
    "speech_max_tokens": 1000,
    "speech_batch_size": 16,
    "codec_chunk_size": 40,
    "codec_overlap": 10,
    "codec_first_chunk_size": None,
    "codec_across_segments": False,
}


class FreezeOmniGenerationConfig(GenerationConfig):
    """`GenerationConfig` with the settings of ears and voice. Every one can be passed to ``generate`` by name.

    Args:
        hearing_beams: Hypotheses of what is being said that are weighed by sound, spelling and what the LLM expects;
            the LLM then reads the tokens of the best one. 1 lets it read the adapter's vectors as they come. More
            needs an adapter that mixes tokens behind a gate.
        hearing_candidates: Tokens that are looked at in a vector.
        hearing_llm_weight: Weight of what the LLM expects, where the adapter's opinion has 1.
        hearing_letter_weight: Weight of the letters, where the adapter hears letters.
        hearing_token_bonus: Added for every token, so that short readings are not preferred.
        top_p_rule: ``"inclusive"`` as in transformers, or ``"exclusive"``: the token that crosses ``top_p`` is left
            out, as the released model samples.
        segment_policy: ``"sentence"`` speaks whole sentences; ``"short_first"`` starts with a clause (or
            ``segment_first_max_tokens`` tokens, cut between words) and goes on with longer pieces.
        segment_min_tokens: Tokens that a piece has at least.
        segment_first_max_tokens: Tokens after which ``"short_first"`` ends the first piece at the next word. Needs
            ``tokenizer``.
        segment_soft_after_tokens: Tokens after which ``"short_first"`` also ends later pieces at a comma.
        segment_text_cleaner: ``"released"`` cleans the text of a piece and tokenises it again, as the released model
            was used; ``"spoken"`` makes words of numbers, units, abbreviations and addresses (English, needs wetext).
            Both run where a ``tokenizer`` is handed to ``generate``. None reads the generated ids.
        segment_border_token_ids: Ids whose text ends a sentence.
        segment_soft_border_token_ids: Ids whose text ends a clause.
        segment_dot_token_ids: Ids that end in a full stop: no border behind a digit.
        segment_digit_token_ids: Ids that end in a digit.
        segment_silent_token_ids: Ids without anything to say (white space, special tokens).
        speech_do_sample: Sample speech tokens; None follows ``do_sample``.
        speech_temperature: Temperature of speech tokens.
        speech_top_k: Speech tokens to sample from.
        speech_penalty: Divides the logits of recent speech tokens; 1 is off.
        speech_penalty_window: How many recent tokens; below 1 is off.
        speech_penalty_rule: ``"standard"`` (once a token, negative logits are multiplied) or ``"released"`` (once an
            occurrence, always divided).
        speech_max_tokens: Speech tokens of one piece at most (40 a second).
        speech_batch_size: Pieces that are spoken at once.
        codec_chunk_size: Speech tokens of one codec window.
        codec_overlap: Speech tokens of context on each side of a window.
        codec_first_chunk_size: Smaller first window of an answer that is streamed.
        codec_across_segments: Make the sound of an answer's pieces as of one, so that no join is heard;
            the end of a piece then waits for the beginning of the next. The released model makes each on its own.
    """

    def __init__(self, **kwargs):
        self._given_speech_settings = [name for name in SPEECH_DEFAULTS if name in kwargs]
        for name, default in SPEECH_DEFAULTS.items():
            setattr(self, name, kwargs.pop(name, default))
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        values.pop("_given_speech_settings", None)
        return values

    @classmethod
    def from_model_config(cls, model_config: PreTrainedConfig) -> "FreezeOmniGenerationConfig":
        """The defaults: nothing of a model's configuration steers generation; ids come from the LLM's own settings."""
        return cls()


def complete_speech_settings(config: GenerationConfig, base: GenerationConfig) -> GenerationConfig:
    """A copy of ``config`` in which the voice settings that were not given to it are those of ``base``."""
    config = copy.deepcopy(config)
    given = getattr(config, "_given_speech_settings", None)
    for name, default in SPEECH_DEFAULTS.items():
        if not (hasattr(config, name) if given is None else name in given):
            setattr(config, name, getattr(base, name, default))
    return config


def check_speech_settings(settings: GenerationConfig) -> None:
    """Refuse values that no step could follow, by name."""
    choices = {
        "top_p_rule": ("inclusive", "exclusive"),
        "segment_policy": ("sentence", "short_first"),
        "segment_text_cleaner": (None, "released", "spoken"),
        "speech_penalty_rule": ("standard", "released"),
    }
    for name, allowed in choices.items():
        if getattr(settings, name) not in allowed:
            raise ValueError(f"{name}={getattr(settings, name)!r} is unknown; choose one of {allowed}.")
    for name in (
        "hearing_beams",
        "hearing_candidates",
        "speech_top_k",
        "speech_max_tokens",
        "speech_batch_size",
        "codec_chunk_size",
        "segment_min_tokens",
    ):
        if getattr(settings, name) < 1:
            raise ValueError(f"{name}={getattr(settings, name)} must be at least 1.")
    for name in ("speech_temperature", "speech_penalty"):
        if not getattr(settings, name) > 0:
            raise ValueError(f"{name}={getattr(settings, name)} must be above 0.")
    for name in ("hearing_llm_weight", "hearing_letter_weight"):
        if getattr(settings, name) < 0:
            raise ValueError(f"{name}={getattr(settings, name)} must not be negative.")
    if settings.codec_overlap < 0:
        raise ValueError(f"codec_overlap={settings.codec_overlap} must not be negative.")


__all__ = ["SPEECH_DEFAULTS", "FreezeOmniGenerationConfig", "check_speech_settings", "complete_speech_settings"]
