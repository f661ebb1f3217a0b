# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""``freeze-omni talk``: one spoken question in, one spoken answer out, with the time of each part.

The file is heard chunk by chunk as a microphone would give it, so times after the question are those of live use.

Run as: freeze-omni talk question.wav -o answer.wav
"""

from argparse import Namespace
from time import perf_counter

import torch

from .embedded import embedded_checkpoint
from .generation.live import SpokenTurn
from .models import FreezeOmniForConditionalGeneration
from .processing import FreezeOmniProcessor, load_audio


PARTS = {
    "load": "load the model",
    "listen": "hear the question as it comes in",
    "longest_chunk": "  longest chunk of 160 ms",
    "end": "hear its end",
    "text_prefill": "LLM prefill",
    "text": "LLM text",
    "speech_decoder": "speech decoder",
    "codec": "codec",
}


class _Printer:
    """Writes the answer's text as it comes."""

    def __init__(self, tokenizer, skip: int):
        from .generation.segmentation import IncrementalText

        self.text, self.skip = IncrementalText(tokenizer), skip

    def put(self, tokens: torch.Tensor) -> None:
        if tokens.ndim == 2:  # the prompt
            return
        print(self.text.push(int(tokens[0])), end="", flush=True)

    def end(self) -> None:
        print(self.text.finish(), flush=True)


def run(args: Namespace) -> int:
    """Answer ``args.audio`` (see the command's help)."""
    start = perf_counter()
    folder = args.model or embedded_checkpoint()
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = FreezeOmniForConditionalGeneration.from_pretrained(
        folder, language_model=args.llm, dtype=None if args.dtype == "auto" else getattr(torch, args.dtype)
    )
    model.to(device).eval()
    processor = FreezeOmniProcessor.from_pretrained(folder)
    times = {"load": perf_counter() - start}

    rate = processor.feature_extractor.sampling_rate
    question = load_audio(args.audio, sampling_rate=rate)
    start = perf_counter()
    messages = [{"role": "system", "content": args.system_prompt}] if args.system_prompt else []
    turn = SpokenTurn(model, processor, messages)
    chunk, chunks = processor.feature_extractor.chunk_length, []
    for begin in range(0, len(question), chunk):
        lap = perf_counter()
        turn.push(question[begin : begin + chunk])
        chunks.append(perf_counter() - lap)
    times.update(listen=perf_counter() - start, longest_chunk=max(chunks))
    start = perf_counter()
    inputs = turn.finish()
    times["end"] = perf_counter() - start

    settings = {"generation_mode": "text" if args.text_only or not model.config.has_voice else "audio"}
    if args.greedy:
        settings["do_sample"] = False
    if args.max_new_tokens:
        settings["max_new_tokens"] = args.max_new_tokens
    if settings["generation_mode"] == "audio":
        from .generation import AudioStreamer

        settings["audio_streamer"] = AudioStreamer()
    if turn.text is not None:
        print(f"Heard:  {turn.text}")
    print("Answer: ", end="", flush=True)
    output = model.generate(
        **inputs,
        **settings,
        tokenizer=processor.tokenizer,
        streamer=_Printer(processor.tokenizer, inputs["input_ids"].shape[1]),
        return_dict_in_generate=True,
    )
    times.update(output.timings)
    print(f"\nQuestion: {len(question) / rate:.2f} s of sound")
    _print_times(times)
    if settings["generation_mode"] == "audio":
        _save_answer(args.output, output, processor, times)
    return 0


def _save_answer(path: str, output, processor: FreezeOmniProcessor, times: dict[str, float]) -> None:
    audio = output.audio[0]
    if not len(audio):
        print("The answer has no sound: the speech decoder ended at once.")
        return
    processor.save_audio(audio, path)
    seconds = len(audio) / processor.output_sampling_rate
    spent = sum(times.get(part, 0.0) for part in ("text", "speech_decoder", "codec"))
    print(f"Written {path}: {seconds:.2f} s of sound, made at {seconds / spent:.1f} times real time.")
    cut = [piece.text for piece in output.segments[0] if piece.finish_reason == "length"]
    if cut:
        print(f"{len(cut)} of {len(output.segments[0])} pieces reached speech_max_tokens and were cut.")


def _print_times(times: dict[str, float]) -> None:
    for part, words in PARTS.items():
        if part in times:
            print(f"  {words:<28}{1000 * times[part]:>9.0f} ms")
    for event, words in (("first_text", "first text token"), ("first_sound", "first sound")):
        if event in times:
            print(f"  {words + ' after the question':<28}  {1000 * (times['end'] + times[event]):>7.0f} ms")


__all__ = ["run"]
