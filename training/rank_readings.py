# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Before output stage 4: several readings of each answer, ranked by a speech recogniser.

Run as: python training/rank_readings.py --config training/recipes/smollm2-135m/pairs.yaml         (resumes)
        ... --num_shards 4 --shard_index 0                                     (one of four nodes, one folder)

Writes `<output>/pairs-<index>.parquet`: for each piece of an answer that was understood better in one reading than in
another, its text, the LLM's hidden states, and the speech tokens of the best and the worst reading.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm
from trl import TrlParser

from freeze_omni_hf.evaluation.judge import JUDGES, transcripts
from freeze_omni_hf.models import FreezeOmniForConditionalGeneration
from freeze_omni_hf.processing import FreezeOmniProcessor
from freeze_omni_hf.training.data import load_rows
from freeze_omni_hf.training.preference import rank_readings, sample_readings
from freeze_omni_hf.training.speaking import questions_as_text
from freeze_omni_hf.training.stages import in_cache


@dataclass
class Arguments:
    """Whose readings of what are ranked by whom."""

    model: str = field(metadata={"help": "Model with a voice: a folder or a Hub id."})
    output: str = field(metadata={"help": "Folder of the result."})
    rows: dict = field(default_factory=dict, metadata={"help": "Spec of rows with messages (load_rows)."})
    readings: int = field(default=4, metadata={"help": "Readings of each piece."})
    top_k: int = field(default=5, metadata={"help": "Speech tokens that a reading chooses from."})
    temperature: float = field(default=1.0, metadata={"help": "Of the choice."})
    judge: str = field(default="whisper-base", metadata={"help": "Recogniser."})
    margin: float = field(default=0.0, metadata={"help": "Least difference of word error rates of a pair."})
    rows_per_file: int = field(default=100, metadata={"help": "Rows of one file."})
    batch_size: int = field(default=10, metadata={"help": "Rows at a time."})
    max_new_tokens: int = field(default=40, metadata={"help": "LLM tokens of an answer."})
    seed: int = field(default=0, metadata={"help": "Of the readings."})
    num_shards: int = field(default=1, metadata={"help": "Number of nodes that share the work."})
    shard_index: int = field(default=0, metadata={"help": "Which of them this is, from 0."})


def main() -> int:
    (arguments,) = TrlParser((Arguments,)).parse_args_and_config()
    model = FreezeOmniForConditionalGeneration.from_pretrained(in_cache(arguments.model)).eval()
    processor = FreezeOmniProcessor.from_pretrained(in_cache(arguments.model))
    judge, rate = JUDGES[arguments.judge](), model.codec.config.sampling_rate

    def hear(reading) -> str:
        sound = model.codec.decode(reading.speech_tokens[None]).audio_values[0]
        return transcripts(judge, [sound.float().cpu().numpy()], rate)[0]

    rows, output = load_rows(arguments.rows), Path(in_cache(arguments.output))
    output.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(rows), arguments.rows_per_file)
    pieces = kept = 0
    with tqdm(total=len(rows), unit="row", desc="ranking") as bar:
        for number, start in list(enumerate(starts))[arguments.shard_index :: arguments.num_shards]:
            file, places = (
                output / f"pairs-{number:05d}.parquet",
                range(start, min(start + arguments.rows_per_file, len(rows))),
            )
            if file.is_file():
                bar.update(len(places))
                continue
            torch.manual_seed(arguments.seed + number)
            pairs = []
            for first in range(places.start, places.stop, arguments.batch_size):
                batch = [rows[place] for place in range(first, min(first + arguments.batch_size, places.stop))]
                for readings in sample_readings(
                    model,
                    spoken_pieces(model, processor, batch, arguments.max_new_tokens),
                    arguments.readings,
                    speech_top_k=arguments.top_k,
                    speech_temperature=arguments.temperature,
                ):
                    pieces += 1
                    pair = rank_readings(readings, hear, arguments.margin)
                    if pair is not None:
                        pairs.append(pair)
                bar.update(len(batch))
            kept += len(pairs)
            partial = file.with_name(f".{file.name}.partial")
            pq.write_table(pa.Table.from_pylist(pairs), partial)
            partial.replace(file)
    print(f"{kept} pairs of {pieces} pieces; of the others all readings were understood alike.")
    return 0


def spoken_pieces(model, processor, rows: list[dict], max_new_tokens: int) -> list:
    """Pieces in which the LLM's answers to the rows' questions are spoken."""
    chats = [questions_as_text(row) for row in rows]
    inputs = processor.apply_chat_template(
        chats, tokenize=True, return_dict=True, add_generation_prompt=True, padding=True, return_tensors="pt"
    )
    output = model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        generation_mode="audio",
        tokenizer=processor.tokenizer,
        return_dict_in_generate=True,
    )
    return [piece for pieces in output.segments for piece in pieces]


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(main())
