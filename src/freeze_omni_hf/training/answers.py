# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""What the frozen LLM itself answers to a text, right or wrong: it is imitated, not taught."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ..embedded import SYSTEM_PROMPT
from ..evaluation.metrics import contains_answer
from ..llm_store import DEFAULT_LLM, cached_llm


class AnswerError(RuntimeError):
    """The LLM cannot be asked. The message says what to do."""


def load_answers(folder: str | Path) -> dict[str, dict]:
    """All cached answers in a folder, by question: {"question", "answer", "finished"}.

    A line that was cut off when a job was stopped is left out, and its question asked again.
    """
    found = {}
    for file in sorted(Path(folder).glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                found[row["question"]] = row
            except (ValueError, KeyError, TypeError):
                continue
    return found


def answer_questions(
    questions: Iterable[str],
    file: str | Path,
    llm: str = DEFAULT_LLM,
    max_new_tokens: int = 40,
    batch_size: int = 48,
    progress: Callable[[int], None] = lambda count: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, dict]:
    """Asks the LLM what the folder's cache has no answer to, greedily and in batches, and adds it to ``file``.

    Args:
        questions: Texts of user turns; the system turn is the embedded model's.
        file: A JSON-lines file; its neighbours are read too.
        llm: Hub id of an LLM in the cache, or a folder.
        max_new_tokens: Longest answer. One that is cut off has ``finished`` false.
        batch_size: Questions at a time.
        progress: Called with the number of questions answered.
        stop: Asked before every batch; true ends the work cleanly.

    Returns:
        All answers of the folder, by question.

    Raises:
        AnswerError: the LLM is not in the cache.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    known = load_answers(file.parent)
    left = sorted({question for question in questions if question not in known}, key=lambda text: (len(text), text))
    if not left:
        return known
    ask = _Asker(llm, max_new_tokens)
    _end_line(file)
    with file.open("a", encoding="utf-8") as out:
        for start in range(0, len(left), batch_size):
            if stop():
                break
            batch = left[start : start + batch_size]
            for row in ask(batch):
                known[row["question"]] = row
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())
            progress(len(batch))
    return known


def _end_line(file: Path) -> None:
    """Closes a line that was cut off, so that the next one stays whole."""
    if file.is_file() and (data := file.read_bytes()) and not data.endswith(b"\n"):
        with file.open("ab") as out:
            out.write(b"\n")


class _Asker:
    def __init__(self, llm: str, max_new_tokens: int):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = llm if Path(llm).is_dir() else cached_llm(llm)
        if folder is None:
            raise AnswerError(f"{llm} is not in the cache; run `python -m freeze_omni_hf.llm_store` once.")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self.max_new_tokens = max_new_tokens

    def __call__(self, questions: list[str]) -> list[dict]:
        import torch

        chats = [
            [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}]
            for question in questions
        ]
        inputs = self.tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
        )
        with torch.inference_mode():
            output = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=self.max_new_tokens,
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        rows = []
        for question, ids in zip(questions, output[:, inputs["input_ids"].shape[1] :], strict=True):
            finished = self.tokenizer.eos_token_id in ids.tolist()
            answer = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
            rows.append({"question": question, "answer": answer, "finished": finished})
        return rows


def text_accuracy(rows: Iterable[tuple[str, Iterable[str]]], answers: dict[str, dict]) -> tuple[int, int]:
    """How many of the questions with accepted answers the LLM answers from text: (right, asked)."""
    right = asked = 0
    for question, accepted in rows:
        accepted = list(accepted)
        if accepted and question in answers:
            asked += 1
            right += contains_answer(answers[question]["answer"], accepted)
    return right, asked


__all__ = ["AnswerError", "answer_questions", "load_answers", "text_accuracy"]
