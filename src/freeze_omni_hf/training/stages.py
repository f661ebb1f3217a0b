# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What the stage scripts share: choosing what is trained, watching the LLM, evaluating, and saving."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices
from transformers.trainer_utils import get_last_checkpoint

from ..language_model import state_hash
from ..llm_store import cache_dir
from ..models import FreezeOmniForConditionalGeneration
from .report import losses, plot_losses, stage_card


logger = logging.getLogger(__name__)

PARTS = ("speech_encoder", "adapter", "prompt_embeddings", "task_embeddings", "state_head", "speech_decoder", "codec")


def train_only(model: FreezeOmniForConditionalGeneration, parts: Iterable[str]) -> list[str]:
    """Make the named parts trainable and freeze all others, the LLM always.

    Returns:
        The names of the trainable parameters.

    Raises:
        ValueError: a part that the model does not have.
    """
    parts = set(parts)
    unknown = sorted(part for part in parts if part not in PARTS or getattr(model, part, None) is None)
    if unknown:
        raise ValueError(f"The model has no {', '.join(unknown)}; its parts are {', '.join(PARTS)}.")
    model.requires_grad_(False)
    for part in parts:
        getattr(model, part).requires_grad_(True)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def encoder_optimizer(
    module: nn.Module, encoder: nn.Module, encoder_learning_rate: float, arguments: Any
) -> torch.optim.AdamW:
    """AdamW over what is trainable in ``module``; its speech encoder has a learning rate of its own.

    Args:
        module: What is trained.
        encoder: The speech encoder inside it.
        encoder_learning_rate: Learning rate of the encoder's parameters.
        arguments: `TrainingArguments` for the others' learning rate, and the weight decay of all.
    """
    slow = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in slow}
    others = [p for p in module.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": others}] + ([{"params": slow, "lr": encoder_learning_rate}] if slow else [])
    return torch.optim.AdamW(
        groups, lr=arguments.learning_rate, betas=(0.9, 0.98), weight_decay=arguments.weight_decay
    )


class StageTrainer(Trainer):
    """`Trainer` whose evaluation has a collator of its own, so that training rows alone are augmented.

    Args:
        eval_collator: Collator of evaluation rows.
    """

    def __init__(self, *args: Any, eval_collator: Any = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.eval_collator = eval_collator or self.data_collator
        self.data_collator.seed = self.args.seed
        self.add_callback(_Epochs(self.data_collator))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        # What a model says of its last step: the parts of its loss.
        figures = getattr(self.accelerator.unwrap_model(self.model), "figures", None)
        if "loss" in logs and figures is not None:
            logs.update(figures())
        super().log(logs, *args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        collator, self.data_collator = self.data_collator, self.eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collator

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            return _ResumableLengthSampler(sampler, self)
        return sampler


class _Epochs(TrainerCallback):
    """Tells a collator which epoch its rows are of."""

    def __init__(self, collator: Any):
        self.collator = collator

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs) -> None:
        self.collator.epoch = _epoch(state)


def _epoch(state: Any) -> int:
    """The running epoch: a whole number also in the middle of one, where a run was resumed."""
    return int((state.epoch or 0) + 1e-6)


class _ResumableLengthSampler(Sampler):
    """`LengthGroupedSampler` whose order depends on seed and epoch alone.

    transformers draws the order from the global generator, which a resumed run has only restored after it has drawn
    the order of the epoch that it goes on with, and so it sees other rows than the run that was stopped.
    """

    def __init__(self, sampler: LengthGroupedSampler, trainer: Trainer):
        # A column of `datasets` reads its file again for every length that is looked up.
        self.lengths = list(sampler.lengths)
        self.batch_size, self.trainer = sampler.batch_size, trainer

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.trainer.args.seed + _epoch(self.trainer.state))
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))


class FrozenParts(TrainerCallback):
    """Fails a run at its end if a module that should not change has changed by one bit.

    Args:
        modules: Names and modules, the LLM among them.
    """

    def __init__(self, modules: dict[str, nn.Module]):
        self.modules = modules
        self.before = {name: state_hash(module) for name, module in modules.items()}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs) -> None:
        changed = [name for name, module in self.modules.items() if state_hash(module) != self.before[name]]
        if changed:
            raise RuntimeError(f"Training changed {', '.join(changed)}, which this stage must leave alone.")
        logger.info("Unchanged after training: %s", ", ".join(self.modules))


class UnfreezeAt(TrainerCallback):
    """Keeps what is trainable in a module frozen until a step, so that what follows it finds its place first.

    Args:
        module: The module.
        step: Optimizer steps before it is trained.
    """

    def __init__(self, module: nn.Module, step: int):
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs) -> None:
        for parameter in self.parameters:
            parameter.requires_grad_(state.global_step >= self.step)


def freeze_lowest_layers(encoder: nn.Module, count: int) -> None:
    """Leave the speech encoder's convolutions and lowest layers as they are; 0 trains all.

    Raises:
        ValueError: more layers than it has.
    """
    if not 0 <= count <= len(encoder.layers):
        raise ValueError(f"frozen_layers={count}, but the speech encoder has {len(encoder.layers)} layers.")
    for module in (encoder.subsampling, *encoder.layers[:count]) if count else ():
        module.requires_grad_(False)


def run_stage(
    name: str,
    trainer: StageTrainer,
    model: Any,
    processor: Any,
    settings: list[Any],
    push_to_hub: bool = False,
    before_saving: Callable[[], None] | None = None,
) -> None:
    """Trains (goes on from the last checkpoint of the output folder, if there is one), saves and reports.

    Args:
        name: Of the stage, for its model card.
        trainer: Ready to train.
        model: Its speech parts are saved, so that the next stage and ``from_pretrained`` read the folder.
        processor: Saved beside them; None where there is none.
        settings: Dataclasses of the run, for the model card.
        push_to_hub: Upload the folder to ``trainer.args.hub_model_id`` (or a repository of the folder's name).
        before_saving: Called once before the model is saved.
    """
    arguments = trainer.args
    resume = arguments.resume_from_checkpoint
    if resume is None and Path(arguments.output_dir).is_dir():
        resume = get_last_checkpoint(arguments.output_dir)
    trainer.train(resume_from_checkpoint=resume)
    if trainer.eval_dataset is not None:
        trainer.save_metrics("eval", trainer.evaluate())
    if not trainer.is_world_process_zero():
        return
    report = str(trainer.data_collator.report)
    print(report)
    folder, history = Path(arguments.output_dir), trainer.state.log_history
    if before_saving is not None:
        before_saving()
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    if losses(history):
        plot_losses(history, folder / "loss.png")
    (folder / "README.md").write_text(stage_card(name, model, [*settings, arguments], history, report), "utf-8")
    if push_to_hub:
        upload(folder, arguments.hub_model_id or folder.name, arguments.hub_private_repo, arguments.hub_token)


def upload(folder: Path, repository: str, private: bool | None = None, token: str | None = None) -> None:
    """Puts the finished model of a stage on the Hub, without its training checkpoints."""
    api = HfApi(token=token)
    repository = api.create_repo(repository, private=private, exist_ok=True).repo_id
    api.upload_folder(repo_id=repository, folder_path=str(folder), ignore_patterns=["checkpoint-*/**", "runs/**"])


def own_the_push(arguments: TrainingArguments) -> bool:
    """Whether the model is to go to the Hub; Trainer itself, which would upload its wrapper, is told not to."""
    wanted, arguments.push_to_hub = arguments.push_to_hub, False
    return wanted


def in_cache(path: str) -> str:
    """A path of a recipe: ``{cache}`` stands for this package's cache."""
    return str(Path(path.replace("{cache}", str(cache_dir()))).expanduser())


__all__ = [
    "PARTS",
    "FrozenParts",
    "StageTrainer",
    "UnfreezeAt",
    "encoder_optimizer",
    "freeze_lowest_layers",
    "in_cache",
    "own_the_push",
    "run_stage",
    "train_only",
    "upload",
]
