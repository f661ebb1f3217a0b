# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Puts a finished run into the repository as the embedded checkpoint: float16 weights, processor, model card.

The model card is MODEL_CARD.md with the figures of `freeze-omni eval` in the place of its figures.

Run as: python training/export_embedded.py --run RUN --figures outputs/eval
"""

import argparse
import re
import shutil
from pathlib import Path

from freeze_omni_hf.embedded import EMBEDDED_NAME
from freeze_omni_hf.models import FreezeOmniForConditionalGeneration
from freeze_omni_hf.processing import FreezeOmniProcessor
from freeze_omni_hf.training.stages import in_cache


ROOT = Path(__file__).parents[1]
MOST_BYTES = 80_000_000
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of the last stage; {cache} stands for the cache")
    parser.add_argument("--figures", type=Path, help="folder that `freeze-omni eval --output` wrote")
    parser.add_argument("--output", type=Path, default=ROOT / "checkpoints" / EMBEDDED_NAME)
    options = parser.parse_args()
    folder = in_cache(options.run)
    export(folder, options.output)
    if options.figures is not None:
        for name in ("figures.json", "figures.png"):
            shutil.copy(options.figures / name, options.output / name)
        put_figures(ROOT / "MODEL_CARD.md", (options.figures / "table.md").read_text(encoding="utf-8"))
    shutil.copy(ROOT / "MODEL_CARD.md", options.output / "README.md")
    size = (options.output / "model.safetensors").stat().st_size
    print(f"{options.output}: {size / 1e6:.1f} MB")


def export(run: str, output: Path) -> None:
    """Speech parts in float16, and the processor.

    Raises:
        ValueError: they are larger than the repository takes.
    """
    model = FreezeOmniForConditionalGeneration.from_pretrained(run)
    parts = [parameter for name, parameter in model.named_parameters() if not name.startswith("language_model.")]
    size = 2 * sum(parameter.numel() for parameter in parts)
    if size > MOST_BYTES:
        raise ValueError(f"The speech parts take {size / 1e6:.0f} MB in float16, more than {MOST_BYTES / 1e6:.0f}.")
    for parameter in parts:
        parameter.data = parameter.data.half()
    # Where the LLM lay on this machine is nobody's business.
    model.config.text_config._name_or_path = model.config.llm_name_or_path
    model.save_pretrained(output)
    FreezeOmniProcessor.from_pretrained(run).save_pretrained(output)


def put_figures(card: Path, table: str) -> None:
    """Replaces what stands between the marks of a model card."""
    text = card.read_text(encoding="utf-8")
    pattern = re.escape(MARKS[0]) + ".*?" + re.escape(MARKS[1])
    card.write_text(
        re.sub(pattern, lambda _: f"{MARKS[0]}\n{table.strip()}\n{MARKS[1]}", text, flags=re.DOTALL), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
