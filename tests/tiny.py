# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Tiny models built on the spot: random weights, real code."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from freeze_omni_hf.configuration import (
    FreezeOmniAdapterConfig,
    FreezeOmniCodecConfig,
    FreezeOmniConfig,
    FreezeOmniSpeechDecoderConfig,
    FreezeOmniSpeechEncoderConfig,
)
from freeze_omni_hf.models import FreezeOmniForConditionalGeneration
from freeze_omni_hf.models.freeze_omni import without_language_model


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level tokenizer with 256 bytes and three special tokens, and a ChatML template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )


def text_config(family: str = "llama", width: int = 32):
    """A causal LM's configuration of two layers."""
    sizes = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 259,
        "max_position_embeddings": 2048,
        "bos_token_id": 257,
        "eos_token_id": 258,
        "pad_token_id": 256,
    }
    if family == "gpt2":
        return GPT2Config(n_embd=width, n_layer=2, n_head=4, vocab_size=259, eos_token_id=258, bos_token_id=257)
    if family == "qwen3":
        return Qwen3Config(**sizes, head_dim=width // 4, tie_word_embeddings=True)
    return {"llama": LlamaConfig, "qwen2": Qwen2Config}[family](**sizes)


def language_model(family: str = "llama", width: int = 32, seed: int = 1):
    """A random LLM whose hidden states are of ordinary size."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(text_config(family, width)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


def config(text=None, voice: bool = True, **kwargs) -> FreezeOmniConfig:
    """A tiny model around any LLM configuration."""
    text = text_config() if text is None else text
    encoder = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "left_chunks": 2,
        **kwargs.pop("encoder", {}),
    }
    parts = {}
    if voice:
        parts = {
            "speech_decoder_config": FreezeOmniSpeechDecoderConfig(
                llm_hidden_size=text.hidden_size,
                **{
                    "hidden_size": 16,
                    "intermediate_size": 32,
                    "num_attention_heads": 2,
                    "num_hidden_layers": 2,
                    "num_pre_layers": 1,
                    "codebook_size": 32,
                    **kwargs.pop("decoder", {}),
                },
            ),
            "codec_config": FreezeOmniCodecConfig(
                encoder_type="stft",
                generator_type="istft",
                num_global_tokens=0,
                codebook_size=32,
                **kwargs.pop("codec", {}),
            ),
        }
    return FreezeOmniConfig(
        speech_encoder_config=FreezeOmniSpeechEncoderConfig(**encoder),
        adapter_config=FreezeOmniAdapterConfig(
            input_size=encoder["hidden_size"],
            output_size=text.hidden_size,
            **{"kernel_size": 3, **kwargs.pop("adapter", {})},
        ),
        text_config=text,
        prompt_length=kwargs.pop("prompt_length", 3),
        **parts,
        **kwargs,
    )


def model(llm=None, seed: int = 0, **kwargs) -> FreezeOmniForConditionalGeneration:
    """A tiny model with random speech parts and its LLM attached."""
    llm = language_model() if llm is None else llm
    torch.manual_seed(seed)
    with without_language_model():
        built = FreezeOmniForConditionalGeneration(config(llm.config, **kwargs)).eval()
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if parameter.ndim > 1 and "codec" not in name:
                parameter.mul_(8)
    built.attach_language_model(llm)
    return built
