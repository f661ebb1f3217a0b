# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
from .adapter import FreezeOmniAdapterConfig
from .codec import FreezeOmniCodecConfig, FreezeOmniOtherCodecConfig
from .freeze_omni import FreezeOmniConfig
from .speech_decoder import FreezeOmniSpeechDecoderConfig
from .speech_encoder import FreezeOmniSpeechEncoderConfig


__all__ = [
    "FreezeOmniAdapterConfig",
    "FreezeOmniCodecConfig",
    "FreezeOmniConfig",
    "FreezeOmniOtherCodecConfig",
    "FreezeOmniSpeechDecoderConfig",
    "FreezeOmniSpeechEncoderConfig",
]
