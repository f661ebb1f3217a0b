# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Puts a finished run into the repository as the embedded checkpoint: float16 weights, processor, model card.

The model card is MODEL_CARD.md with figures of `freeze-omni eval` and `freeze-omni judge` in the place of its own.

Run as: python training/export_embedded.py --run RUN --figures outputs/eval --voice-figures outputs/judge
"""

import argparse
import re
import shutil
from pathlib import Path

from freeze_omni_hf.embedded import EMBEDDED_NAME
from freeze_omni_hf.models import FreezeOmniForConditionalGeneration
from freeze_omni_hf.processing import FreezeOmniProcessor
from freeze_omni_hf.training.stages import in_cache
from freeze_omni_hf.training.through_decoder import change_codec


ROOT = Path(__file__).parents[1]
MOST_BYTES = 80_000_000
MARKS = ("<!-- {} -->", "<!-- end of {} -->")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="folder of the last stage; {cache} stands for the cache")
    parser.add_argument("--figures", type=Path, help="folder that `freeze-omni eval --output` wrote")
    parser.add_argument("--voice-figures", type=Path, help="folder that `freeze-omni judge --output` wrote")
    parser.add_argument("--codec", help="codec in the place of the run's, with the same tokens (generator_only)")
    parser.add_argument("--output", type=Path, default=ROOT / "checkpoints" / EMBEDDED_NAME)
    options = parser.parse_args()
    folder = in_cache(options.run)
    export(folder, options.output, options.codec and in_cache(options.codec))
    for source, table, stem in (
        (options.figures, "table.md", "figures"),
        (options.voice_figures, "speaking.md", "speaking"),
    ):
        if source is not None:
            for name in (f"{stem}.json", f"{stem}.png"):
                shutil.copy(source / name, options.output / name)
            put_figures(ROOT / "MODEL_CARD.md", (source / table).read_text(encoding="utf-8"), stem)
    shutil.copy(ROOT / "MODEL_CARD.md", options.output / "README.md")
    size = (options.output / "model.safetensors").stat().st_size
    print(f"{options.output}: {size / 1e6:.1f} MB")


def export(run: str, output: Path, codec: str | None = None) -> None:
    """Speech parts in float16, and the processor.

    Raises:
        ValueError: they are larger than the repository takes, or the other codec has other tokens.
    """
    model = FreezeOmniForConditionalGeneration.from_pretrained(run)
    if codec is not None:
        change_codec(model, codec)
    parts = [parameter for name, parameter in model.named_parameters() if not name.startswith("language_model.")]
    others = [buffer for name, buffer in model.named_buffers() if not name.startswith("language_model.")]
    size = 2 * sum(parameter.numel() for parameter in parts) + sum(buffer.nbytes for buffer in others)
    if size > MOST_BYTES:
        raise ValueError(f"The speech parts take {size / 1e6:.0f} MB in float16, more than {MOST_BYTES / 1e6:.0f}.")
    for parameter in parts:
        parameter.data = parameter.data.half()
    # Where the LLM and the codec lay on this machine is nobody's business.
    model.config.text_config._name_or_path = model.config.llm_name_or_path
    if model.config.codec_config is not None:
        model.config.codec_config._name_or_path = ""
    model.save_pretrained(output)
    FreezeOmniProcessor.from_pretrained(run).save_pretrained(output)


def put_figures(card: Path, table: str, name: str) -> None:
    """Replaces what stands between the marks of that name in a model card."""
    text, (start, end) = card.read_text(encoding="utf-8"), (mark.format(name) for mark in MARKS)
    pattern = re.escape(start) + ".*?" + re.escape(end)
    card.write_text(
        re.sub(pattern, lambda _: f"{start}\n{table.strip()}\n{end}", text, flags=re.DOTALL), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
