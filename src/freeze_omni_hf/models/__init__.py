# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
from .adapter import FreezeOmniAdapter, StateHead
from .cache import AdapterCache, AudioCache, SpeechEncoderCache, StreamCache
from .codec import FreezeOmniCodec, FreezeOmniOtherCodec
from .freeze_omni import FreezeOmniForConditionalGeneration, FreezeOmniOutput, FreezeOmniPreTrainedModel
from .speech_decoder import FreezeOmniSpeechDecoder, SpeechDecoderCache
from .speech_encoder import FreezeOmniSpeechEncoder, FreezeOmniSpeechEncoderForCTC


__all__ = [
    "AdapterCache",
    "AudioCache",
    "FreezeOmniAdapter",
    "FreezeOmniCodec",
    "FreezeOmniForConditionalGeneration",
    "FreezeOmniOtherCodec",
    "FreezeOmniOutput",
    "FreezeOmniPreTrainedModel",
    "FreezeOmniSpeechDecoder",
    "FreezeOmniSpeechEncoder",
    "FreezeOmniSpeechEncoderForCTC",
    "SpeechDecoderCache",
    "SpeechEncoderCache",
    "StateHead",
    "StreamCache",
]
