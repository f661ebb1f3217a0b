# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Ears and a voice for a text LLM whose weights never change (Freeze-Omni, arXiv 2411.00774).

Importing the package registers its classes with transformers' Auto classes and its pipeline with ``pipeline``.
"""

try:
    import transformers
except OSError as error:  # transformers imports torchaudio, whose wheel may not fit a CPU-only torch
    raise ImportError(
        f"transformers cannot be imported ({error}). `freeze-omni env` names what is broken and "
        "`freeze-omni env --fix` mends a torchaudio that does not fit a CPU-only torch."
    ) from error

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForMultimodalLM, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration import (
    FreezeOmniAdapterConfig,
    FreezeOmniCodecConfig,
    FreezeOmniConfig,
    FreezeOmniOtherCodecConfig,
    FreezeOmniSpeechDecoderConfig,
    FreezeOmniSpeechEncoderConfig,
)
from .embedded import LazyDefault, embedded_checkpoint, embedded_config
from .generation import (
    AudioIteratorStreamer,
    AudioStreamer,
    FreezeOmniGenerateOutput,
    FreezeOmniGenerationConfig,
    SpokenTurn,
    generate_in_thread,
)
from .language_model import LanguageModelError, language_model_fingerprint, state_hash
from .models import (
    FreezeOmniAdapter,
    FreezeOmniCodec,
    FreezeOmniForConditionalGeneration,
    FreezeOmniOtherCodec,
    FreezeOmniSpeechDecoder,
    FreezeOmniSpeechEncoder,
    FreezeOmniSpeechEncoderForCTC,
    StateHead,
)
from .pipelines import SpeechToSpeechPipeline
from .processing import FreezeOmniFeatureExtractor, FreezeOmniProcessor


__version__ = "0.1.0"

for _config, _model in (
    (FreezeOmniConfig, FreezeOmniForConditionalGeneration),
    (FreezeOmniSpeechEncoderConfig, FreezeOmniSpeechEncoder),
    (FreezeOmniAdapterConfig, FreezeOmniAdapter),
    (FreezeOmniSpeechDecoderConfig, FreezeOmniSpeechDecoder),
    (FreezeOmniCodecConfig, FreezeOmniCodec),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)
AutoModelForMultimodalLM.register(FreezeOmniConfig, FreezeOmniForConditionalGeneration, exist_ok=True)
for _config, _model in ((FreezeOmniCodecConfig, FreezeOmniCodec), (FreezeOmniOtherCodecConfig, FreezeOmniOtherCodec)):
    transformers.AutoModelForAudioTokenization.register(_config, _model, exist_ok=True)
AutoFeatureExtractor.register(FreezeOmniConfig, FreezeOmniFeatureExtractor, exist_ok=True)
AutoProcessor.register(FreezeOmniConfig, FreezeOmniProcessor, exist_ok=True)
if "speech-to-speech" not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(
        "speech-to-speech", SpeechToSpeechPipeline, pt_model=AutoModel, default=LazyDefault(), type="multimodal"
    )


__all__ = [
    "AudioIteratorStreamer",
    "AudioStreamer",
    "FreezeOmniAdapter",
    "FreezeOmniAdapterConfig",
    "FreezeOmniCodec",
    "FreezeOmniCodecConfig",
    "FreezeOmniConfig",
    "FreezeOmniFeatureExtractor",
    "FreezeOmniForConditionalGeneration",
    "FreezeOmniGenerateOutput",
    "FreezeOmniGenerationConfig",
    "FreezeOmniOtherCodec",
    "FreezeOmniOtherCodecConfig",
    "FreezeOmniProcessor",
    "FreezeOmniSpeechDecoder",
    "FreezeOmniSpeechDecoderConfig",
    "FreezeOmniSpeechEncoder",
    "FreezeOmniSpeechEncoderConfig",
    "FreezeOmniSpeechEncoderForCTC",
    "LanguageModelError",
    "SpeechToSpeechPipeline",
    "SpokenTurn",
    "StateHead",
    "embedded_checkpoint",
    "embedded_config",
    "generate_in_thread",
    "language_model_fingerprint",
    "state_hash",
]
