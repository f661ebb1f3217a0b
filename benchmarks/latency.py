# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""Where the time goes: per 160 ms of question, and from the end of the question to the answer's sound.

Needs no trained model: the answer's text is dictated and numbers of steps are fixed, so that every run does the same
work. Prints a table and saves it as JSON and as a picture.

Run as: python benchmarks/latency.py [CHECKPOINT WAV] [--threads 2] [--repeats 10] [--output-dir outputs/latency]
"""

import argparse
import copy
import json
import os
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib


matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from figures import Figure, Figures, bars, table
from torch import Tensor
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList

from freeze_omni_hf import (
    AudioStreamer,
    FreezeOmniCodec,
    FreezeOmniForConditionalGeneration,
    FreezeOmniProcessor,
    SpokenTurn,
    embedded_checkpoint,
)
from freeze_omni_hf.generation.sampling import choose_speech_tokens
from freeze_omni_hf.language_model import cache_of
from freeze_omni_hf.processing import load_audio


QUESTION = Path(__file__).parents[1] / "examples" / "question.wav"
ANSWER = (
    "Yes, of course. The train to the coast leaves at ten in the morning, and it takes about two hours. "
    "You can buy a ticket at the station."
)
CHUNK_PARTS = {
    "features": "feature extraction",
    "encoder": "speech encoder",
    "adapter": "adapter",
    "prefill": "LLM prefill",
    "state": "state head",
}
ANSWER_PARTS = {"text": "LLM text", "speech_decoder": "speech decoder", "codec": "codec"}
CHUNKS_PER_REPEAT = 5
MAX_TEXT_TOKENS = 40
SEGMENT_TOKENS = 12  # text tokens that the speech decoder reads when it is measured alone
SPEECH_TOKENS = 100  # 2.5 s, about what such a segment takes to say
CODEC_TOKENS = 400
BATCH_SIZES = (1, 4, 16)


class Clock:
    """Seconds between laps; waits for the accelerator, so that a lap holds its own work."""

    def __init__(self, device: torch.device):
        self.device = device
        self.lap()

    def lap(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = perf_counter()
        seconds, self.last = now - getattr(self, "last", now), now
        return seconds


class Dictation(LogitsProcessor):
    """Makes a text of the given ids, whatever the LLM would say; the prompt must be given as embeddings."""

    def __init__(self, ids: list[int]):
        self.ids = ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = torch.full_like(scores, -torch.inf)
        chosen[:, self.ids[input_ids.shape[1]]] = 0.0
        return chosen


def repeat(measure: Callable[[], Any], repeats: int, title: str) -> list[Any]:
    """Results of ``measure``, called once more beforehand to warm up."""
    measure()
    return [measure() for _ in tqdm(range(repeats), desc=title, leave=False)]


def prompt_embeddings(
    model: FreezeOmniForConditionalGeneration, processor: FreezeOmniProcessor
) -> tuple[Tensor, Tensor]:
    """(1, S, width) embeddings of what stands before the user's sound, the learned prompt included, and after it."""
    messages = [{"role": "user", "content": [{"type": "audio", "array": [0.0] * 2560, "sampling_rate": 16000}]}]
    ids = processor.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)[0]
    places = (ids == processor.audio_token_id).nonzero().flatten().tolist()
    before = embed(model, ids[: places[0]])
    if model.prompt_embeddings is not None:
        before = torch.cat((before, model.prompt_embeddings.weight[None].to(before)), dim=1)
    return before, embed(model, ids[places[-1] + 1 :])


def embed(model: FreezeOmniForConditionalGeneration, ids: Tensor) -> Tensor:
    table = model.get_input_embeddings()
    return table(ids.to(table.weight.device))[None]


def read(model: FreezeOmniForConditionalGeneration, vectors: Tensor, cache: Any = None) -> Any:
    """The LLM's output for (1, S, width) further vectors of a conversation, without text logits: nobody reads them."""
    past = 0 if cache is None else cache.get_seq_length()
    mask = torch.ones(1, past + vectors.shape[1], dtype=torch.long, device=vectors.device)
    nothing = torch.empty(0, dtype=torch.long, device=vectors.device)
    return model.run_language_model(vectors, mask, past_key_values=cache, use_cache=True, logits_to_keep=nothing)


def measure_chunks(
    model: FreezeOmniForConditionalGeneration,
    processor: FreezeOmniProcessor,
    question: Tensor,
    before: Tensor,
    count: int,
) -> tuple[Figures, Any]:
    """Times of each part of ``count`` chunks of a streamed question, and the LLM's cache at its end.

    The first chunks, until the encoder's left context is full and a few more, are not counted. A question that is too
    short is repeated; for the streams it is one.
    """
    extractor = processor.feature_extractor
    length, warm_up = extractor.chunk_length, max(model.config.speech_encoder_config.left_chunks, 0) + 4
    question = question.repeat(-(-(warm_up + count) * length // len(question)))
    conversation = cache_of(read(model, before))
    features_cache = encoder_cache = adapter_cache = None
    times: dict[str, list[float]] = {part: [] for part in CHUNK_PARTS}
    clock = Clock(model.device)
    for index in tqdm(range(warm_up + count), desc="chunks", leave=False):
        clock.lap()
        features, features_cache = extractor.stream(question[index * length : (index + 1) * length], features_cache)
        laps = [clock.lap()]
        encoded = model.speech_encoder(
            features.to(model.device), cache=encoder_cache, use_cache=True, return_dict=True
        )
        encoder_cache = encoded.cache
        laps.append(clock.lap())
        adapted = model.adapter(
            encoded.last_hidden_state, encoded.attention_mask, cache=adapter_cache, use_cache=True, return_dict=True
        )
        adapter_cache = adapted.cache
        read_mask = None if adapted.gate_logits is None else adapted.gate_logits > 0
        vectors, _ = model.as_embeddings(adapted.last_hidden_state, adapted.spelling, read_mask)
        laps.append(clock.lap())
        output = read(model, vectors.to(before), conversation)
        conversation = cache_of(output)
        laps.append(clock.lap())
        if model.state_head is not None:
            model.state_head(output.hidden_states[-1][:, -1].to(model.state_head.weight)).argmax().item()
        laps.append(clock.lap())
        if index >= warm_up:
            for part, seconds in zip(times, laps, strict=True):
                times[part].append(1000 * seconds)
    budget = 1000 * length / extractor.sampling_rate
    total = [sum(parts) for parts in zip(*times.values(), strict=True)]
    figures = {f"chunk_{part}": Figure(f"chunk: {CHUNK_PARTS[part]}", "ms", times[part]) for part in times}
    figures["chunk_total"] = Figure("chunk: total", "ms", total, target=60.0)
    figures["chunk_share"] = Figure(f"chunk: share of {budget:.0f} ms", "%", [100 * value / budget for value in total])
    return figures, conversation


def measure_listening(
    model: FreezeOmniForConditionalGeneration, processor: FreezeOmniProcessor, question: Tensor, repeats: int
) -> Figures:
    """A question heard by search, chunk by chunk as a microphone gives it, and what is left to do at its end."""
    if model.generation_config.hearing_beams < 2:
        return {}
    length, clock = processor.feature_extractor.chunk_length, Clock(model.device)
    chunks, shares, ends = [], [], []

    def listen() -> None:
        turn, laps = SpokenTurn(model, processor), []
        clock.lap()
        for piece in question.split(length):
            turn.push(piece)
            laps.append(1000 * clock.lap())
        turn.finish()
        ends.append(1000 * clock.lap())
        chunks.extend(laps)
        shares.append(100 * sum(laps) * processor.feature_extractor.sampling_rate / 1000 / len(question))

    repeat(listen, min(repeats, 5), "listening")
    return {
        "listen_chunk": Figure("search: chunk of the question", "ms", chunks),
        "listen_share": Figure("search: share of real time", "%", shares),
        "listen_end": Figure("search: end of the question", "ms", ends),
    }


def measure_answer(
    model: FreezeOmniForConditionalGeneration,
    processor: FreezeOmniProcessor,
    conversation: Any,
    after: Tensor,
    repeats: int,
) -> Figures:
    """``generate`` with an audio streamer on the cache of the streamed question, with the checkpoint's own settings.

    The first sound is what reaches the listener first: the rest of the prompt, the text of the first piece, its speech
    tokens of the first codec window and that window.
    """
    tokenizer = processor.tokenizer
    ids = tokenizer(ANSWER, add_special_tokens=False)["input_ids"][:MAX_TEXT_TOKENS]
    past = conversation.get_seq_length()
    mask = torch.ones(1, past + after.shape[1], dtype=torch.long, device=after.device)

    def answer() -> dict[str, float]:
        cache, heard = copy.deepcopy(conversation), []
        start = perf_counter()
        output = model.generate(
            inputs_embeds=after,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=len(ids),
            do_sample=False,
            logits_processor=LogitsProcessorList([Dictation(ids)]),
            speech_max_tokens=SPEECH_TOKENS,
            audio_streamer=AudioStreamer(lambda chunk: heard.append(perf_counter() - start)),
            tokenizer=tokenizer,
            return_dict_in_generate=True,
        )
        if not heard:
            raise SystemExit("The speech decoder ended at once: there is no sound to measure.")
        seconds = len(output.audio[0]) / model.codec.config.sampling_rate
        spent = output.timings
        parts = {"text": spent["text_prefill"] + spent.get("text", 0.0)}
        parts |= {part: spent[part] for part in ("speech_decoder", "codec")}
        return {
            "text_rate": (len(ids) - 1) / spent["text"],
            "first_text": 1000 * spent["first_text"],
            "first_sound": 1000 * heard[0],
            "answer_total": (perf_counter() - start) / seconds,
            **{f"answer_{part}": value / seconds for part, value in parts.items()},
        }

    runs = repeat(answer, repeats, "answers")
    rows = {
        "text_rate": ("LLM text tokens", "/s"),
        "first_text": ("first text after the question", "ms"),
        "first_sound": ("first sound after the question", "ms"),
        **{f"answer_{part}": (f"answer: {words}", "s/s") for part, words in ANSWER_PARTS.items()},
        "answer_total": ("answer: total, real-time factor", "s/s"),
    }
    return {
        key: Figure(label, unit, [run[key] for run in runs], higher_is_better=key == "text_rate")
        for key, (label, unit) in rows.items()
    }


def measure_speech_decoder(model: FreezeOmniForConditionalGeneration, repeats: int) -> Figures:
    """Speech tokens a second of the decoder alone, its choice of tokens included, at several batch sizes."""
    decoder, settings, figures = model.speech_decoder, model.generation_config, {}
    config = decoder.config
    clock = Clock(decoder.device)

    def speak(batch: int) -> float:
        text = torch.randn(batch, SEGMENT_TOKENS, config.llm_hidden_size, device=decoder.device)
        ids = torch.randint(config.num_tokens, text.shape[:2], device=decoder.device) if config.letters else None
        cache = decoder.prefill(text, prefix_embeds=text, text_ids=ids)
        tokens = torch.full((batch,), config.bos_speech_token_id, device=decoder.device)
        history = tokens[:, None]
        clock.lap()
        for _ in range(SPEECH_TOKENS):
            output = decoder.step(tokens, cache)
            cache = output.cache
            tokens = choose_speech_tokens(output.logits[:, -1], history, settings, config.codebook_size, True)
            tokens = tokens.clamp(max=config.codebook_size - 1)  # an end token would make the run shorter
            history = torch.cat((history, tokens[:, None]), dim=1)
        return batch * SPEECH_TOKENS / clock.lap()

    codec = model.codec.config
    rates = {size: repeat(lambda size=size: speak(size), repeats, f"speech x{size}") for size in BATCH_SIZES}
    figures["speech_decoder_rate"] = Figure("speech tokens", "/s", rates[1], True, target=160.0)
    spoken = [rate * codec.samples_per_token / codec.sampling_rate for rate in rates[1]]
    figures["speech_decoder_real_time"] = Figure("speech tokens", "x real time", spoken, True)
    alone = statistics.median(rates[1])
    for size in BATCH_SIZES[1:]:
        ratios = [rate / alone for rate in rates[size]]
        figures[f"speech_decoder_batch_{size}"] = Figure(
            f"speech tokens, {size} rows at once", "x one row", ratios, True
        )
    return figures


def measure_codec(model: FreezeOmniForConditionalGeneration, repeats: int) -> Figures:
    """Times real time of the codec in the windows of a stream and at once."""
    codec, settings = model.codec, model.generation_config
    codes = torch.randint(codec.config.codebook_size, (CODEC_TOKENS,), device=codec.device)
    seconds = CODEC_TOKENS * codec.config.samples_per_token / codec.config.sampling_rate
    clock = Clock(codec.device)

    def stream() -> float:
        clock.lap()
        opened = codec.open_stream(settings.codec_chunk_size, settings.codec_overlap, settings.codec_first_chunk_size)
        for token in codes.split(1):
            opened.push(token)
        opened.finish()
        return seconds / clock.lap()

    return {
        "codec_streaming": Figure(
            "codec, in a stream", "x real time", repeat(stream, repeats, "codec stream"), True, 20.0
        ),
        "codec_offline": Figure(
            "codec, at once", "x real time", repeat(lambda: decode_rate(codec, codes), repeats, "codec"), True
        ),
    }


def decode_rate(codec: FreezeOmniCodec, codes: Tensor) -> float:
    """Seconds of sound a second, all tokens (N,) decoded at once."""
    clock = Clock(codec.device)
    codec.decode(codes[None], return_dict=True)
    return len(codes) * codec.config.samples_per_token / codec.config.sampling_rate / clock.lap()


def measure_other_generator(model: FreezeOmniForConditionalGeneration, repeats: int) -> Figures:
    """The codec at once beside the other kind of generator, of the same latents and default sizes."""
    config = copy.deepcopy(model.codec.config)
    config.generator_type = "hifigan" if config.generator_type == "istft" else "istft"
    other = FreezeOmniCodec(config).to(model.codec.device, model.codec.dtype).eval()
    codes = torch.randint(config.codebook_size, (SPEECH_TOKENS,), device=other.device)
    rates = repeat(
        lambda: decode_rate(model.codec, codes) / decode_rate(other, codes), min(repeats, 3), config.generator_type
    )
    label = f"codec, at once, over {config.generator_type}"
    return {"codec_over_other": Figure(label, "x as fast", rates, True)}


def measure_memory(device: torch.device) -> Figures:
    """Most memory that the process held up to now."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    figures = {"peak_memory": Figure("peak memory of the process", "GB", [peak / 1e9], target=2.0)}
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated(device) / 1e9
        figures["peak_device_memory"] = Figure("peak memory of the device", "GB", [used])
    return figures


def save(figures: Figures, settings: dict[str, Any], folder: Path) -> None:
    """Write ``latency.json`` and ``latency.png``."""
    rows = {key: figure.to_dict() for key, figure in figures.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latency.json").write_text(json.dumps({"settings": settings, "figures": rows}, indent=2) + "\n")
    draw(figures, settings["chunk_ms"], folder / "latency.png")


def draw(figures: Figures, budget: float, path: Path) -> None:
    """Bars of a chunk's parts and of the answer's parts, each against real time."""
    canvas, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    chunk = {words: figures[f"chunk_{part}"] for part, words in {**CHUNK_PARTS, "total": "total"}.items()}
    bars(left, chunk, "ms")
    left.axvline(figures["chunk_total"].target, color="tab:orange", linestyle="--", label="target")
    left.axvline(budget, color="tab:red", linestyle="--", label="real time")
    left.set_title(f"One chunk of the question ({budget:.0f} ms)")
    answer = {words: figures[f"answer_{part}"] for part, words in {**ANSWER_PARTS, "total": "total"}.items()}
    bars(right, answer, "ms for a second of sound", 1000)
    right.axvline(1000, color="tab:red", linestyle="--", label="real time")
    right.set_title(
        f"The answer (first text {figures['first_text'].median:.0f} ms, "
        f"first sound {figures['first_sound'].median:.0f} ms)"
    )
    for axes in (left, right):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False)
    canvas.savefig(path, dpi=120)
    plt.close(canvas)


def load(args: argparse.Namespace) -> tuple[FreezeOmniForConditionalGeneration, FreezeOmniProcessor]:
    model = FreezeOmniForConditionalGeneration.from_pretrained(
        args.checkpoint,
        language_model=args.llm,
        dtype=None if args.dtype == "auto" else getattr(torch, args.dtype),
        llm_kwargs=None if args.llm_dtype == "auto" else {"dtype": getattr(torch, args.llm_dtype)},
    )
    model.to(args.device).eval()
    if not model.config.has_voice:
        raise SystemExit("This checkpoint has no speech decoder and codec: there is no answer to measure.")
    if args.compile:
        model.compile_steps()
    return model, FreezeOmniProcessor.from_pretrained(args.checkpoint)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    dtypes = ("auto", "float32", "bfloat16", "float16")
    parser.add_argument("checkpoint", nargs="?", help="folder or Hub id; the embedded model by default")
    parser.add_argument("wav", nargs="?", default=str(QUESTION), help="the question; examples/question.wav by default")
    parser.add_argument("--llm", help="the LLM's folder or Hub id, where it is not the configured one")
    parser.add_argument("--dtype", default="auto", choices=dtypes, help="of the speech parts (auto: float32)")
    parser.add_argument("--llm-dtype", default="auto", choices=dtypes, help="of the LLM (auto: its own)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--repeats", type=int, default=10, help=f"times {CHUNKS_PER_REPEAT} for chunks")
    parser.add_argument("--compile", action="store_true", help="compile the steps of the model first")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/latency"))
    args = parser.parse_args(arguments)
    if args.repeats < 1:
        parser.error(f"--repeats {args.repeats} must be at least 1.")
    args.checkpoint = args.checkpoint or str(embedded_checkpoint())
    return args


@torch.inference_mode()
def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    load_average = os.getloadavg()[0]
    model, processor = load(args)
    extractor = processor.feature_extractor
    question = torch.from_numpy(load_audio(args.wav, sampling_rate=extractor.sampling_rate))
    before, after = prompt_embeddings(model, processor)
    figures, conversation = measure_chunks(model, processor, question, before, CHUNKS_PER_REPEAT * args.repeats)
    figures |= measure_listening(model, processor, question, args.repeats)
    figures |= measure_answer(model, processor, conversation, after, args.repeats)
    figures |= measure_speech_decoder(model, args.repeats)
    figures |= measure_codec(model, args.repeats)
    figures |= measure_memory(model.device)
    figures |= measure_other_generator(model, args.repeats)
    settings = {
        "checkpoint": Path(args.checkpoint).name,
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load_average": load_average,  # before the run: threads that wait for each other suffer from neighbours most
        "torch": torch.__version__,
        "speech_dtype": str(model.speech_decoder.dtype),
        "llm_dtype": str(model.language_model.dtype),
        "compiled": args.compile,
        "conversation_positions": conversation.get_seq_length(),
        "chunk_ms": 1000 * extractor.chunk_length / extractor.sampling_rate,
    }
    print("\n".join(f"{name}: {value}" for name, value in settings.items()), table(figures), sep="\n\n")
    save(figures, settings, args.output_dir)
    print(f"\nWritten {args.output_dir / 'latency.json'} and latency.png.")


if __name__ == "__main__":
    main()
