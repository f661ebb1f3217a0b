# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Every recipe is understood by its script's parser, setting by setting, and names data that a spec can describe."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import TrainingArguments
from trl import DPOConfig, TrlParser

from freeze_omni_hf.configuration import (
    FreezeOmniAdapterConfig,
    FreezeOmniSpeechDecoderConfig,
    FreezeOmniSpeechEncoderConfig,
)
from freeze_omni_hf.models import FreezeOmniAdapter, FreezeOmniSpeechDecoder, FreezeOmniSpeechEncoder
from freeze_omni_hf.training.augmentation import Augmentation
from freeze_omni_hf.training.data import DataSpec
from freeze_omni_hf.training.new_model import ModelArguments
from freeze_omni_hf.training.stages import PARTS
from freeze_omni_hf.training.through_decoder import SpeakingArguments, VoiceArguments
from freeze_omni_hf.training.through_llm import ConversationArguments


TRAINING = Path(__file__).parents[2] / "training"
RECIPES = sorted(path for path in TRAINING.glob("recipes/*/*put*.yaml") if path.stem != "output4")


def stage_arguments(recipe: Path) -> list[type]:
    """What the recipe's script parses."""
    number = recipe.stem.split("_")[0]
    (script,) = TRAINING.glob(f"{number}_*.py")
    if number in ("output2", "output3"):
        return [SpeakingArguments, VoiceArguments]
    stage = runpy.run_path(str(script)).get("StageArguments", ConversationArguments)
    # The codec knows nothing of the rest of the model.
    return [stage] if number == "output1" else [stage, ModelArguments]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipe_is_understood(recipe, monkeypatch, tmp_path):
    content = yaml.safe_load(recipe.read_text())
    content.update(output_dir=str(tmp_path), use_cpu=True, bf16=False, dataloader_num_workers=0)
    content.pop("ddp_backend", None)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(sys, "argv", ["script", "--config", str(tmp_path / "recipe.yaml")])
    parser = TrlParser((*stage_arguments(recipe), TrainingArguments))
    stage, *model, arguments = parser.parse_args_and_config(fail_with_unknown_args=True)
    for spec in (*stage.train, *stage.test.values()):
        DataSpec.from_dict(spec)
    assert stage.train and all(part.llm or part.model for part in model)
    Augmentation.from_dict(getattr(stage, "augment", None))
    assert set(getattr(stage, "parts", [])) <= set(PARTS)
    assert not arguments.remove_unused_columns


@pytest.mark.parametrize(
    ("name", "script", "extra"),
    [
        ("output4", "output4_prefer", [ModelArguments, DPOConfig]),
        ("pairs", "rank_readings", []),
        ("codes", "encode_speech", []),
    ],
)
def test_other_recipes_are_understood(name, script, extra, monkeypatch, tmp_path):
    for recipe in TRAINING.glob(f"recipes/*/{name}.yaml"):
        content = yaml.safe_load(recipe.read_text())
        if DPOConfig in extra:
            content.update(output_dir=str(tmp_path), use_cpu=True, bf16=False)
            content.pop("ddp_backend", None)
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
        monkeypatch.setattr(sys, "argv", ["script", "--config", str(tmp_path / "recipe.yaml")])
        module = runpy.run_path(str(TRAINING / f"{script}.py"))
        stage = module.get("StageArguments") or module["Arguments"]
        parsed, *_ = TrlParser((stage, *extra)).parse_args_and_config(fail_with_unknown_args=True)
        specs = getattr(parsed, "sets", None) or ({"rows": parsed.rows} if hasattr(parsed, "rows") else {})
        for spec in specs.values():
            DataSpec.from_dict(spec)
        assert specs or parsed.pairs


@pytest.mark.parametrize("config", sorted(TRAINING.glob("accelerate/*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_configuration(config):
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(config)).num_processes >= 1


def test_the_papers_sizes():
    """Parameters of the released encoder (up to what the position rule adds), adapter and speech decoder."""
    content = yaml.safe_load((TRAINING / "recipes/qwen2-7b/input1.yaml").read_text())
    with torch.device("meta"):
        encoder = FreezeOmniSpeechEncoder(FreezeOmniSpeechEncoderConfig(**content["encoder"]))
        adapter = FreezeOmniAdapter(FreezeOmniAdapterConfig(input_size=1024, output_size=3584, **content["adapter"]))
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(357.95e6, rel=0.001)
    voice = yaml.safe_load((TRAINING / "recipes/qwen2-7b/output2.yaml").read_text())["decoder"]
    with torch.device("meta"):
        decoder = FreezeOmniSpeechDecoder(FreezeOmniSpeechDecoderConfig(llm_hidden_size=3584, **voice))
    assert sum(p.numel() for p in decoder.parameters()) == 164_718_980
    assert sum(p.numel() for p in adapter.parameters()) == pytest.approx(17.84e6, rel=0.001)
