# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
from .speech_to_speech import SpeechToSpeechPipeline


__all__ = ["SpeechToSpeechPipeline"]
