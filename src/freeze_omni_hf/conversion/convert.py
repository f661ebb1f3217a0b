# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Converts a checkpoint in the released layout to a folder for ``from_pretrained``, without loading the LLM.

Run as: freeze-omni convert CHECKPOINTS --llm PATH_OR_ID --output DIR
"""

import json
import shutil
import tempfile
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from ..configuration import FreezeOmniConfig
from ..generation.configuration import FreezeOmniGenerationConfig
from ..generation.segmentation import segment_token_ids
from ..language_model import resolve_language_model
from ..models.codec import released_codec_config, released_codec_state_dict
from ..models.freeze_omni import FreezeOmniForConditionalGeneration, without_language_model
from ..processing import FreezeOmniProcessor, chat_template_from_released
from . import released
from .released import ConversionError


AUDIO_FILE = "audiollm/final.pt"
DECODER_FILE = "decoder/final.pt"
CODEC_FILE = "codec/final.pt"
# The released sampling of text (its scripts), and the tokens after which its loop stops.
TEXT_SAMPLING = {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.8, "max_new_tokens": 129}


@dataclass
class ConversionReport:
    """What became of every tensor: names as in the released files.

    Attributes:
        used: File and name of each tensor that was taken over.
        ignored: File and name, with the reason.
        missing: Our parameters that no released tensor fills.
    """

    used: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.used)} tensors used, {len(self.ignored)} ignored, {len(self.missing)} missing"]
        lines += [f"  used     {name}" for name in self.used]
        lines += [f"  ignored  {name}: {reason}" for name, reason in self.ignored.items()]
        lines += [f"  missing  {name}" for name in self.missing]
        return "\n".join(lines)


def convert(
    checkpoints: str | Path,
    llm: str,
    output: str | Path,
    dtype: torch.dtype | None = torch.float32,
    overwrite: bool = False,
) -> ConversionReport:
    """Convert a released checkpoint.

    Args:
        checkpoints: Folder with ``audiollm/``, ``decoder/``, ``codec/`` and ``server.json``.
        llm: Folder or Hub id of the LLM; only its configuration and tokenizer are read.
        output: Folder to write.
        dtype: Type of the written weights; None keeps each tensor's own.
        overwrite: Replace an existing checkpoint in ``output``.

    Raises:
        ConversionError: a file is missing, truncated, mismatched or of an unsupported kind. Nothing is written then.
    """
    checkpoints, output = Path(checkpoints), Path(output)
    if not checkpoints.is_dir():
        raise ConversionError(f"{checkpoints} is no folder: give the one that holds audiollm/, decoder/ and codec/.")
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise ConversionError(f"{output} is not empty: choose another --output, or --force to replace it.")
    try:
        config, chat_template = _build_config(checkpoints, llm)
    except ConversionError:
        raise
    except (KeyError, ValueError) as error:
        raise ConversionError(f"The settings in {checkpoints} cannot be followed: {error}") from error
    state, report = _read_weights(checkpoints, config, dtype)
    with without_language_model(), torch.device("meta"):
        model = FreezeOmniForConditionalGeneration(config)
    _check(model, state, report)
    model.load_state_dict(state, assign=True)

    tokenizer = AutoTokenizer.from_pretrained(resolve_language_model(llm))
    processor = FreezeOmniProcessor.from_model_config(config, tokenizer, chat_template=chat_template["jinja"])
    config.audio_token_id = model.config.audio_token_id = processor.audio_token_id
    model.generation_config = _generation_config(checkpoints, tokenizer, chat_template["released"])
    # Everything is written beside its place first: an error leaves no half of a checkpoint behind.
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        model.save_pretrained(folder, max_shard_size="5GB")
        processor.save_pretrained(folder)
        (Path(folder) / "conversion.json").write_text(
            json.dumps({"used": report.used, "ignored": report.ignored, "missing": report.missing}, indent=1)
        )
        output.mkdir(exist_ok=True)
        for item in Path(folder).iterdir():
            shutil.move(item, output / item.name)
    return report


def _build_config(checkpoints: Path, llm: str) -> tuple[FreezeOmniConfig, dict[str, str]]:
    settings = released.load_train_settings(checkpoints / "audiollm/train.yaml")
    try:
        text_config = AutoConfig.from_pretrained(resolve_language_model(llm))
    except (OSError, ValueError) as error:
        raise ConversionError(f"The LLM {llm!r} cannot be read ({str(error).splitlines()[0]}).") from error
    model = settings["model_conf"]
    width = text_config.get_text_config(decoder=True).hidden_size
    if model.get("llm_embed_dim", width) != width:
        raise ConversionError(
            f"audiollm/train.yaml was made for an LLM of width llm_embed_dim={model['llm_embed_dim']}; {llm!r} has "
            f"hidden_size={width}."
        )
    encoder = released.encoder_config(settings)
    template = model.get("chat_template") or ""
    if template.count("<audio>") != 1:
        raise ConversionError("audiollm/train.yaml: chat_template must hold the marker <audio> once.")
    prompts = bool(model.get("prompt_finetune")) and bool(model.get("add_prompt_before"))
    config = FreezeOmniConfig(
        speech_encoder_config=encoder,
        adapter_config=released.adapter_config(model, encoder.hidden_size, width),
        text_config=text_config,
        speech_decoder_config=released.decoder_config(released.load_json(checkpoints / "decoder/model.json"), width),
        codec_config=released_codec_config(released.load_json(checkpoints / "codec/model.json")),
        prompt_length=model.get("prompt_num", 5) if prompts else 0,
        num_tasks=model.get("task_num", 10),
        num_states=model.get("predict_usr_state", 0),
        # A folder by its full path, so that the checkpoint finds it from anywhere.
        llm_name_or_path=str(Path(llm).resolve()) if Path(llm).is_dir() else str(llm),
    )
    return config, {"released": template, "jinja": chat_template_from_released(template)}


def _read_weights(
    checkpoints: Path, config: FreezeOmniConfig, dtype: torch.dtype | None
) -> tuple[dict[str, Tensor], ConversionReport]:
    report, state = ConversionReport(), {}

    def take(file: str, name: str, ours: str, tensor: Tensor) -> None:
        report.used.append(f"{file}: {name}")
        if tensor.is_floating_point() and dtype is not None:
            tensor = tensor.to(dtype)
        state[ours] = tensor.contiguous().clone()

    audio = released.load_pickle(checkpoints / AUDIO_FILE)
    for name, tensor in _tensors(audio, AUDIO_FILE).items():
        ours = released.audio_name(name, config.adapter_config)
        if ours is None or (ours == "prompt_embeddings.weight" and not config.prompt_length):
            report.ignored[f"{AUDIO_FILE}: {name}"] = (
                "part of the LLM, which is read from its own folder"
                if name.startswith("llm_decoder.")
                else "not used in inference"
            )
        else:
            take(AUDIO_FILE, name, ours, tensor)
    if "speech_encoder.feature_mean" not in state:
        settings = released.load_train_settings(checkpoints / "audiollm/train.yaml")
        mean, scale = released.load_cmvn(checkpoints / "audiollm/global_cmvn", bool(settings.get("is_json_cmvn")))
        take("audiollm/global_cmvn", "mean", "speech_encoder.feature_mean", mean)
        take("audiollm/global_cmvn", "istd", "speech_encoder.feature_scale", scale)

    decoder = released.load_pickle(checkpoints / DECODER_FILE)
    if isinstance(decoder.get("model"), dict):
        report.ignored.update({f"{DECODER_FILE}: {name}": "not a weight" for name in decoder if name != "model"})
        decoder = decoder["model"]
    for name, tensor in _tensors(decoder, DECODER_FILE).items():
        ours = released.decoder_name(name)
        if ours is None:
            report.ignored[f"{DECODER_FILE}: {name}"] = "not used in inference"
        else:
            take(DECODER_FILE, name, ours, tensor)

    codec = released.load_pickle(checkpoints / CODEC_FILE)
    if absent := [part for part in ("generator", "quantizer", "encoder") if part not in codec]:
        raise ConversionError(f"{checkpoints / CODEC_FILE} lacks {', '.join(absent)}: it is truncated.")
    extra = [name for name in codec if name not in ("generator", "quantizer", "encoder")]
    report.ignored.update({f"{CODEC_FILE}: {name}": "not a part of the codec" for name in extra})
    mapped, used, ignored = released_codec_state_dict(codec["generator"], codec["quantizer"], codec["encoder"])
    for name, tensor in mapped.items():
        if tensor.is_floating_point() and dtype is not None:
            tensor = tensor.to(dtype)
        state[f"codec.{name}"] = tensor.contiguous().clone()
    report.used += [f"{CODEC_FILE}: {name}" for name in used]
    report.ignored.update({f"{CODEC_FILE}: {name}": "not used" for name in ignored})
    return state, report


def _tensors(state: dict[str, Any], file: str) -> dict[str, Tensor]:
    wrong = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if len(wrong) == len(state):
        raise ConversionError(f"{file} holds no tensors at its top level, only {wrong[:5]}.")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _check(model: torch.nn.Module, state: dict[str, Tensor], report: ConversionReport) -> None:
    """Refuse a checkpoint that does not fill every parameter with a tensor of its shape."""
    wanted = model.state_dict()
    optional = "num_batches_tracked"
    for name in [name for name in wanted if name.endswith(optional) and name not in state]:
        state[name] = torch.zeros((), dtype=torch.long)
    report.missing = sorted(set(wanted) - set(state))
    wrong = [
        f"{name} is {tuple(state[name].shape)}, its configuration says {tuple(wanted[name].shape)}"
        for name in sorted(set(wanted) & set(state))
        if wanted[name].shape != state[name].shape
    ]
    extra = sorted(set(state) - set(wanted))
    if report.missing or wrong or extra:
        found = [f"{name} is missing" for name in report.missing] + wrong + [f"{name} has no place" for name in extra]
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise ConversionError(
            "The checkpoint is truncated or does not fit its configuration files: " + "; ".join(found[:8]) + more + "."
        )


def _generation_config(checkpoints: Path, tokenizer: Any, template: str) -> FreezeOmniGenerationConfig:
    """The released sampling, segmentation and streaming settings."""
    server = released.load_json(checkpoints / "server.json")
    suffix = tokenizer(template.split("<audio>")[1], add_special_tokens=False)["input_ids"]
    window = server.get("decoder_penalty_window_size", -1)
    return FreezeOmniGenerationConfig(
        **TEXT_SAMPLING,
        top_p_rule="exclusive",
        # The first token behind the user's audio is the one that ends every turn.
        eos_token_id=suffix[0],
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else suffix[0],
        segment_policy="sentence",
        segment_text_cleaner="released",
        speech_top_k=server.get("decoder_top_k", 2),
        speech_penalty=server.get("decoder_penalty", 1.1),
        speech_penalty_window=window,
        speech_penalty_rule="released",
        codec_chunk_size=server.get("decoder_chunk_size", 40),
        codec_overlap=server.get("decoder_chunk_overlap_size", 10),
        codec_first_chunk_size=server.get("decoder_first_chunk_size"),
        **segment_token_ids(tokenizer),
    )


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "keep": None}


def run(args: Namespace) -> int:
    """``freeze-omni convert``."""
    report = convert(args.checkpoints, args.llm, args.output, DTYPES[args.dtype], args.force)
    print(report)
    print(f"Written to {args.output}. Load it with FreezeOmniForConditionalGeneration.from_pretrained.")
    return 0


__all__ = ["ConversionReport", "convert", "run"]
