# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
from .configuration import FreezeOmniGenerationConfig
from .listening import Heard
from .live import SpokenTurn
from .mixin import FreezeOmniGenerateOutput, FreezeOmniGenerationMixin
from .segmentation import Segment, Segmenter, clean_released, segment_token_ids
from .speech import SpokenSegment
from .streamers import AudioChunk, AudioIteratorStreamer, AudioStreamer, generate_in_thread


__all__ = [
    "AudioChunk",
    "AudioIteratorStreamer",
    "AudioStreamer",
    "FreezeOmniGenerateOutput",
    "FreezeOmniGenerationConfig",
    "FreezeOmniGenerationMixin",
    "Heard",
    "Segment",
    "Segmenter",
    "SpokenSegment",
    "SpokenTurn",
    "clean_released",
    "generate_in_thread",
    "segment_token_ids",
]
