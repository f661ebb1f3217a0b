# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
from .audio import (
    AudioContentError,
    AudioError,
    AudioFormatError,
    AudioNotFoundError,
    AudioRateError,
    AudioTooLongError,
    load_audio,
    save_audio,
)
from .chat_template import chat_template_from_released
from .feature_extraction import FeatureCache, FreezeOmniFeatureExtractor
from .processor import FreezeOmniProcessor


__all__ = [
    "AudioContentError",
    "AudioError",
    "AudioFormatError",
    "AudioNotFoundError",
    "AudioRateError",
    "AudioTooLongError",
    "FeatureCache",
    "FreezeOmniFeatureExtractor",
    "FreezeOmniProcessor",
    "chat_template_from_released",
    "load_audio",
    "save_audio",
]
