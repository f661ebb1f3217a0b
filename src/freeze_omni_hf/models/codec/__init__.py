# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The codec: waveform to speech tokens and back, at once or in a stream."""

from .modeling import (
    FreezeOmniCodec,
    FreezeOmniCodecDecoderOutput,
    FreezeOmniCodecEncoderOutput,
    FreezeOmniCodecOutput,
)
from .other import FreezeOmniOtherCodec
from .released import MappedWeights, fold_weight_norm, released_codec_config, released_codec_state_dict
from .silence import SilenceSplitter
from .streaming import CodecStream, CodecStreamState, Window, finish_streams, push_streams, window_plan


__all__ = [
    "CodecStream",
    "CodecStreamState",
    "FreezeOmniCodec",
    "FreezeOmniCodecDecoderOutput",
    "FreezeOmniCodecEncoderOutput",
    "FreezeOmniCodecOutput",
    "FreezeOmniOtherCodec",
    "MappedWeights",
    "SilenceSplitter",
    "Window",
    "finish_streams",
    "fold_weight_norm",
    "push_streams",
    "released_codec_config",
    "released_codec_state_dict",
    "window_plan",
]
