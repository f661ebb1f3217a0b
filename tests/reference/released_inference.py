# Copyright 2026 The freeze-omni-hf team. Licensed under the Apache License, Version 2.0.
"""The released inference once more, as plain functions on the released files.

A second opinion for the tests: it reads ``train.yaml``, ``model.json`` and ``final.pt`` as they are, keeps the
released names, handles one conversation at a time, and shares no line with the package. Everything is float32
and greedy. ``m`` is always what ``load`` returns; a "frame" is an encoder frame (40 ms) unless it says fbank.
"""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
import yaml
from torchaudio.compliance import kaldi
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache


HOP = 160  # samples between two fbank frames
PIECE_ENDS = tuple("。：？！.?!\n")


# --- files ---
def load(checkpoints: Path, llm: Path) -> SimpleNamespace:
    """Reads the released folders: one weight dictionary per file, settings as stored."""
    checkpoints = Path(checkpoints)
    train = yaml.safe_load((checkpoints / "audiollm/train.yaml").read_text())
    audio = _floats(torch.load(checkpoints / "audiollm/final.pt", weights_only=True))
    decoder = torch.load(checkpoints / "decoder/final.pt", weights_only=True)
    codec = torch.load(checkpoints / "codec/final.pt", weights_only=True)
    language = AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32).eval()
    stored = {k.removeprefix("llm_decoder."): v for k, v in audio.items() if k.startswith("llm_decoder.")}
    language.load_state_dict(stored, strict=False)  # of a full state dictionary; aliases have no place
    if "encoder.global_cmvn.mean" not in audio:
        mean, istd = read_cmvn(checkpoints / "audiollm/global_cmvn", train["is_json_cmvn"])
        audio.update({"encoder.global_cmvn.mean": mean, "encoder.global_cmvn.istd": istd})
    tokenizer = AutoTokenizer.from_pretrained(llm)
    left, suffix = train["model_conf"]["chat_template"].split("<audio>")
    role, prefix = left.split("<|im_end|>")
    layout = {k.replace("_", "-"): v for k, v in train["encoder_conf"]["overview_conf"].items()}
    conf = train["encoder_conf"]["para_conf"][layout["encoder-layer-config"].split("-")[1]]
    return SimpleNamespace(
        audio=audio,
        conf={k.replace("-", "_").removeprefix("transformer_"): v for k, v in conf.items()},
        model_conf=train["model_conf"],
        decoder=_floats(decoder.get("model", decoder)),
        decoder_conf=json.loads((checkpoints / "decoder/model.json").read_text()),
        codec={name: _floats(codec[name]) for name in ("generator", "quantizer", "encoder") if name in codec},
        codec_conf=json.loads((checkpoints / "codec/model.json").read_text()),
        server=json.loads((checkpoints / "server.json").read_text()),
        language=language,
        tokenizer=tokenizer,
        eod=tokenizer("<|im_end|>")["input_ids"][0],
        role_ids=tokenizer(role + "<|im_end|>")["input_ids"],
        prefix_ids=tokenizer(prefix)["input_ids"],
        suffix_ids=tokenizer(suffix)["input_ids"],
    )


def _floats(weights: dict) -> dict:
    return {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}


def read_cmvn(path: Path, is_json: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1/deviation from the sums in the JSON file or the Kaldi text file, in double precision."""
    if is_json:
        stats = json.loads(path.read_text())
        total, square, count = stats["mean_stat"], stats["var_stat"], stats["frame_num"]
    else:
        words = path.read_text().split()
        assert words[0] == "[" and words[-1] == "]" and words[-2] == "0", "Kaldi text statistics"
        numbers = [float(word) for word in words[1:-2]]
        half = len(numbers) // 2
        total, count, square = numbers[:half], numbers[half], numbers[half + 1 :]
    mean = torch.tensor(total, dtype=torch.float64) / count
    variance = torch.tensor(square, dtype=torch.float64) / count - mean**2
    return mean.float(), (1 / variance.clamp(min=1e-20).sqrt()).float()


def _linear(w: dict, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def _layer_norm(w: dict, name: str, x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


# --- front end ---
def fbank_chunks(wav: torch.Tensor, frames: int) -> torch.Tensor:
    """16 kHz sound in [-1, 1) to chunks of 3 old + ``frames`` new log-mel frames.

    240 old samples stand before the new ones, zeros at the start; the first three rows ever are literal zeros.
    The last chunk is filled up with zeros, and nothing is flushed after it.
    """
    size = frames * HOP
    wav = F.pad(wav, (0, -len(wav) % size))
    old_samples, old_frames, chunks = torch.zeros(240), torch.zeros(3, 80), []
    for new in wav.split(size):
        samples = torch.cat([old_samples, new * 32768])
        fbank = kaldi.fbank(samples[None], dither=0.0, frame_length=25, frame_shift=10, num_mel_bins=80)
        assert len(fbank) == frames
        chunks.append(torch.cat([old_frames, fbank]))
        old_samples, old_frames = samples[-240:], fbank[-3:]
    return torch.stack(chunks)


# --- speech encoder ---
def cmvn(m, x: torch.Tensor) -> torch.Tensor:
    return (x - m.audio["encoder.global_cmvn.mean"]) * m.audio["encoder.global_cmvn.istd"]


def subsample(m, x: torch.Tensor) -> torch.Tensor:
    """Two 3x3 convolutions of stride 2 without padding, then a linear layer; channels come first in a frame."""
    w, name = m.audio, "encoder.enc.0.core."
    x = F.relu(F.conv2d(x[:, None], w[name + "conv.0.weight"], w[name + "conv.0.bias"], stride=2))
    x = F.relu(F.conv2d(x, w[name + "conv.2.weight"], w[name + "conv.2.bias"], stride=2))
    return _linear(w, name + "out.0", x.transpose(1, 2).flatten(2))


def sinusoids(positions: torch.Tensor, width: int) -> torch.Tensor:
    """Sine in the even, cosine in the odd columns."""
    steps = torch.exp(torch.arange(0, width, 2).float() * -(math.log(10000.0) / width))
    angles = positions[:, None].float() * steps
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def encode_chunk(m, chunk: torch.Tensor, caches: list, pe_index: int) -> tuple[torch.Tensor, int]:
    """One chunk (1, 3 + frames, 80) through the encoder; ``caches`` (per layer K, V or None) is updated.

    The chunk sees itself and what the cache kept, unmasked. Positions belong to the keys, not to the pairs: they
    run from max(0, index - (left + 1) chunk), so once the left window is full they lag by one chunk, and they
    start over where the table of 5000 rows would end.
    """
    w, c = m.audio, m.conf
    size, width = c["chunk_size"], c["attention_dim"]
    keep, window = size * c["left_chunks"], size * (c["left_chunks"] + 1)
    pe_index %= size * (5000 // size) - window
    start = max(0, pe_index - window)
    x = subsample(m, cmvn(m, chunk))
    if c.get("input_layer", "linear") == "linear":
        x = F.relu(_layer_norm(w, "encoder.enc.1.embed.1", _linear(w, "encoder.enc.1.embed.0", x)))
    x = x * math.sqrt(width)
    before = c.get("normalize_before", True)
    for i in range(c["num_blocks"]):
        name, old = f"encoder.enc.1.encoders.{i}.", x
        h = _layer_norm(w, name + "norm1", x) if before else x
        attended, caches[i] = _encoder_attention(m, name + "self_attn.", h, caches[i], start, keep)
        if c.get("concat_after", False):
            attended = _linear(w, name + "concat_linear", torch.cat([h, attended], dim=-1))
        x = old + attended
        x = x if before else _layer_norm(w, name + "norm1", x)
        h = _layer_norm(w, name + "norm2", x) if before else x
        x = x + _linear(w, name + "feed_forward.w_2", F.relu(_linear(w, name + "feed_forward.w_1", h)))
        x = x if before else _layer_norm(w, name + "norm2", x)
    return _layer_norm(w, "encoder.enc.1.after_norm", x) if before else x, pe_index + size


def _encoder_attention(m, name: str, x: torch.Tensor, cache, start: int, keep: int):
    w, heads = m.audio, m.conf["attention_heads"]

    def split(y):
        return y.unflatten(-1, (heads, -1)).transpose(1, 2)

    q, k, v = (split(_linear(w, f"{name}linear_{part}", x)) for part in "qkv")
    if cache is not None:
        k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
    places = sinusoids(torch.arange(start, start + k.shape[2]), x.shape[-1])[None]
    p = split(_linear(w, name + "linear_pos", places))
    u_bias, v_bias = w[name + "pos_bias_u"][:, None], w[name + "pos_bias_v"][:, None]
    scores = (q + u_bias) @ k.transpose(-1, -2) + (q + v_bias) @ p.transpose(-1, -2)
    mixed = (scores / math.sqrt(q.shape[-1])).softmax(-1) @ v
    return _linear(w, name + "linear_out", mixed.transpose(1, 2).flatten(2)), (k[:, :, -keep:], v[:, :, -keep:])


# --- adapter ---
def adapt_chunk(m, x: torch.Tensor, caches: list) -> torch.Tensor:
    """Causal convolution(s), the last one of stride 2; ``caches`` is [] at the start, then [input of conv1d2]
    or [input of conv1d2, input of conv1d1]. There are two convolutions where four times the width is still
    less than the LLM's; those use BatchNorm and ReLU whatever the settings say."""
    w, c = m.audio, m.model_conf
    kernel, twice = c["kernel_size"], 4 * c["enc_out_dim"] < c["llm_embed_dim"]
    fresh, x = not caches, x.transpose(1, 2)
    old = {"conv1d2": None, "conv1d1": None} if fresh else dict(zip(("conv1d2", "conv1d1"), caches, strict=False))
    new = {}

    def convolve(x, name, stride):
        before = x.new_zeros(1, x.shape[1], kernel - 1) if old[name] is None else old[name]
        x = torch.cat([before, x], dim=2)
        new[name] = x[:, :, -(kernel - 1) :]
        return F.conv1d(x, w[f"adpter.{name}.weight"], w[f"adpter.{name}.bias"], stride=stride)

    def batch_norm(x, name):
        mean, var, scale, shift = (w[f"adpter.{name}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, scale, shift, eps=1e-3)

    if twice:
        x = F.relu(batch_norm(convolve(x, "conv1d1", 1), "bn1"))
        x = F.relu(batch_norm(convolve(x, "conv1d2", 2), "bn2"))
    else:
        x = convolve(x, "conv1d2", 2)
        if c.get("norm", "batch") == "layer":
            x = _layer_norm(w, "adpter.bn2", x.transpose(1, 2), 1e-3).transpose(1, 2)
        else:
            x = batch_norm(x, "bn2")
        x = F.gelu(x) if c.get("activation_func", "relu") == "gelu" else F.relu(x)
    caches[:] = [new[name] for name in ("conv1d2", "conv1d1") if name in new]
    return _linear(w, "adpter.project", x.transpose(1, 2))


# --- listening ---
def embed(m, ids: list[int]) -> torch.Tensor:
    return m.language.get_input_embeddings()(torch.tensor([ids], dtype=torch.long))


def language_step(m, vectors: torch.Tensor, kv: DynamicCache) -> torch.Tensor:
    """Appends the vectors to the conversation; hidden states after the LLM's final norm."""
    return m.language.model(inputs_embeds=vectors, past_key_values=kv, use_cache=True).last_hidden_state


def begin(m) -> DynamicCache:
    """State "pre": the system role without its end mark."""
    kv = DynamicCache(config=m.language.config)
    language_step(m, embed(m, m.role_ids[:-1]), kv)
    return kv


def listen(m, chunks: torch.Tensor, kv: DynamicCache) -> list[SimpleNamespace]:
    """States "sl" (first chunk) and "cl": encoder, adapter, LLM and state head chunk by chunk.

    Each step keeps what the state head says; it is not obeyed, as in the offline script. The first chunk is
    preceded by the end mark that closes what came before, the user prefix and the prompt vectors.
    """
    encoder_cache, adapter_cache, pe_index, steps = [None] * m.conf["num_blocks"], [], 0, []
    for index, chunk in enumerate(chunks):
        encoded, pe_index = encode_chunk(m, chunk[None], encoder_cache, pe_index)
        adapted = adapt_chunk(m, encoded, adapter_cache)
        vectors = adapted
        if index == 0:
            before = [embed(m, [m.eod, *m.prefix_ids])]
            if m.model_conf.get("prompt_finetune") and m.model_conf.get("add_prompt_before"):
                before.append(m.audio["prompt_embeddings.weight"][None])
            vectors = torch.cat([*before, adapted], dim=1)
        hidden = language_step(m, vectors, kv)
        logits = _linear(m.audio, "predictor_head", hidden)
        chances = logits[0, :, :-1].softmax(-1)[-1]  # the last class takes no part
        state = "el" if chances[2] > 0.5 else "ss" if chances[1] > 0.5 else "cl"
        steps.append(SimpleNamespace(encoded=encoded, adapted=adapted, vectors=vectors, hidden=hidden, logits=logits))
        vars(steps[-1]).update(chances=chances, state=state, pe_index=pe_index)
    steps[-1].encoder_cache, steps[-1].adapter_cache = encoder_cache, adapter_cache
    return steps


# --- text answer ---
def answer(m, kv: DynamicCache, limit: int = 128) -> SimpleNamespace:
    """States "ss" and "cs": the suffix, then one token at a time until the end mark or more than ``limit``.

    The hidden state kept with a token is the one that produced it. Text is cut where the newly decoded piece ends
    a sentence, except at "." after a digit; the first token's text arrives together with the second token's. (With
    one token alone the released script has no text at all and ends with an error.)
    """
    ids, hidden_states, logits, segments = [], [], [], []
    pending, text, whole, last = [], "", "", ""
    vectors = embed(m, m.suffix_ids)
    while len(ids) <= limit:
        hidden = language_step(m, vectors, kv)[:, -1]
        scores = m.language.lm_head(hidden)
        token = int(scores.argmax())
        hidden_states.append(hidden)
        logits.append(scores)
        if token == m.eod:
            break
        ids.append(token)
        pending.append(hidden)
        vectors = embed(m, [token])
        if len(ids) == 1:
            continue
        decoded = m.tokenizer.decode(ids, skip_special_tokens=True)
        piece = decoded[len(last) :]
        text, whole = text + piece, whole + piece
        if piece.endswith(PIECE_ENDS) and not (piece.endswith(".") and last[-1:].isdigit()):
            segments.append((text, torch.cat(pending)))
            pending, text = [], ""
        last = decoded
    if pending:
        segments.append((text, torch.cat(pending)))
    thought = {"hidden": torch.cat(hidden_states), "logits": torch.cat(logits)}
    return SimpleNamespace(ids=ids, text=whole, ended=token == m.eod, segments=segments, **thought)


def post_process(text: str) -> str:
    """The cleaning of a sentence before it is tokenized again."""
    text = text.replace("、", "，").replace("(", ",").replace(")", ",").replace("（", "，").replace("）", "，")
    text = re.sub(r"[\n\r\t*_`~]", "", text)
    text = re.sub(r"([.:])\s+", r"\1", text)
    if re.search("[一-龥]", text):
        text = re.sub(r"(\d+)\.\s*([一-龥A-Za-z])", r"\1：\2", text)
    else:
        text = re.sub(r"(\d+)\.\s*(\w)", r"\1:\2", text)
    if text and text[-1] not in "。？！.?!":
        text = text[:-1] + "。" if text[-1] in ",，;；:：、" else text + "。"
    return text


# --- speech decoder ---
def llama_block(m, name: str, x: torch.Tensor, cache: list, positions: torch.Tensor) -> torch.Tensor:
    """A LLaMA block without any mask; ``cache`` [K, V] (rotated keys) is extended in place."""
    w, heads = m.decoder, m.decoder_conf[2]["transformer_attention_heads"]
    h = rms_norm(x, w[name + "input_layernorm.weight"])
    q, k, v = (
        F.linear(h, w[f"{name}self_attn.{p}_proj.weight"]).unflatten(-1, (heads, -1)).transpose(1, 2) for p in "qkv"
    )
    q, k = rotate(q, positions), rotate(k, positions)
    cache[:] = [torch.cat([old, new], dim=2) for old, new in zip(cache, (k, v), strict=True)] if cache else [k, v]
    k, v = cache
    mixed = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
    x = x + F.linear(mixed.transpose(1, 2).flatten(2), w[name + "self_attn.o_proj.weight"])
    h = rms_norm(x, w[name + "post_attention_layernorm.weight"])
    gate = F.silu(F.linear(h, w[name + "mlp.gate_proj.weight"]))
    return x + F.linear(gate * F.linear(h, w[name + "mlp.up_proj.weight"]), w[name + "mlp.down_proj.weight"])


def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def rotate(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotary positions, base 10000, first half of a head paired with the second."""
    half = x.shape[-1] // 2
    angles = positions[:, None].float() * 10000.0 ** -(torch.arange(half).float() / half)
    cos, sin = angles.cos(), angles.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def speak(m, text: torch.Tensor, prefix: torch.Tensor, window: int, penalty: float, limit: int = 1000):
    """Speech tokens of one segment from text embeddings and LLM hidden states, both (1, t, d).

    The prefix stack writes the first keys and values of the AR stack; text positions start from zero again;
    every row sees everything. Penalty: a token that stands c times in the last ``window`` tokens (the start
    token is the first of them) has its logit divided c times, also where it is negative.
    """
    w, blocks = m.decoder, m.decoder_conf[2]["transformer_num_blocks"]
    codes = m.decoder_conf[1]
    bos, sos, eos = codes, codes + 1, codes + 2
    h = text
    for i in range(blocks // 2):
        h = llama_block(m, f"layers_pre_nn.{i}.", h, [], torch.arange(h.shape[1]))
    pre_nn_out, caches, x = h, [[] for _ in range(blocks)], prefix
    for i in range(blocks):
        x = llama_block(m, f"layers_prefix.{i}.", x, caches[i], torch.arange(x.shape[1]))
    prefix_cache = [list(cache) for cache in caches]
    rows = torch.cat([w["embedding.weight"][bos][None, None], h], dim=1)
    for i in range(blocks):
        rows = llama_block(m, f"layers.{i}.", rows, caches[i], torch.arange(rows.shape[1]))
    tokens, logits, ended = [sos], [], False
    while len(tokens) <= limit:
        x = w["embedding.weight"][tokens[-1]][None, None]
        position = torch.tensor([caches[0][0].shape[2] - prefix.shape[1]])
        for i in range(blocks):
            x = llama_block(m, f"layers.{i}.", x, caches[i], position)
        scores = F.linear(rms_norm(x, w["norm.weight"]), w["out_fnn.weight"], w["out_fnn.bias"])[0, 0]
        logits.append(scores.clone())
        if window > 0:
            for token in tokens[-window:]:
                scores[token] /= penalty
        token = int(scores.argmax())
        if ended := token == eos:
            break
        tokens.append(token)
    inner = {"logits": torch.stack(logits), "pre_nn_out": pre_nn_out, "prefix_cache": prefix_cache}
    return SimpleNamespace(tokens=tokens[1:], ended=ended, **inner)


# --- codec ---
def weight(w: dict, name: str) -> torch.Tensor:
    """g v / |v|, the length taken over all but the first dimension (the input channels of a transposed one)."""
    v = w[f"{name}.weight_v"]
    return w[f"{name}.weight_g"] * v / v.pow(2).sum(dim=(1, 2), keepdim=True).sqrt()


def _conv(w: dict, name: str, x: torch.Tensor, **kwargs) -> torch.Tensor:
    return F.conv1d(x, weight(w, name), w[f"{name}.bias"], **kwargs)


def residual_block(w: dict, name: str, kind: str, x: torch.Tensor, kernel: int, dilations: list) -> torch.Tensor:
    for j, d in enumerate(dilations[: 3 if kind == "1" else 2]):
        first = "convs1" if kind == "1" else "convs"
        h = _conv(w, f"{name}.{first}.{j}", F.leaky_relu(x, 0.1), dilation=d, padding=(kernel * d - d) // 2)
        if kind == "1":
            h = _conv(w, f"{name}.convs2.{j}", F.leaky_relu(h, 0.1), padding=(kernel - 1) // 2)
        x = x + h
    return x


def generate_sound(m, codes: torch.Tensor) -> torch.Tensor:
    """Codes (1, T) with the stored voice to sound (1, 1, about 600 T) at 24 kHz.

    The voice vector is added after the upsampling stage(s) that leave 128 channels.
    """
    w, q, c = m.codec["generator"], m.codec["quantizer"], m.codec_conf
    x = q["quantizer_modules.0.embedding.weight"][codes].transpose(1, 2)
    books = [q[f"quantizer_modules_globaltokens.{j}.embedding.weight"] for j in range(len(c["global_tokens"]))]
    voice = torch.cat([book[code] for book, code in zip(books, c["global_tokens"], strict=True)])[None, :, None]
    x = _conv(w, "conv_pre", x, padding=3)
    kernels = c["resblock_kernel_sizes"]
    for i, (rate, size) in enumerate(zip(c["upsample_rates"], c["upsample_kernel_sizes"], strict=True)):
        x, padding = F.leaky_relu(x, 0.1), (size - rate) // 2
        x = F.conv_transpose1d(x, weight(w, f"ups.{i}"), w[f"ups.{i}.bias"], stride=rate, padding=padding)
        blocks = [
            residual_block(w, f"resblocks.{i * len(kernels) + j}", c["resblock"], x, kernel, dilations)
            for j, (kernel, dilations) in enumerate(zip(kernels, c["resblock_dilation_sizes"], strict=True))
        ]
        x = torch.stack(blocks).mean(0)
        if x.shape[1] == 128:
            x = x + voice
    return _conv(w, "conv_post", F.leaky_relu(x, 0.1), padding=3).tanh()


def codec_windows(m, tokens: list[int], chunk: int, padding: int) -> torch.Tensor:
    """Decodes overlapping windows as soon as left + chunk + padding tokens wait, and keeps the middle of each.
    (Where the pieces for the loudspeaker are cut does not change the whole sound, so it is left out.)"""
    sound, waiting, left = [], [], 0
    for token in tokens:
        waiting.append(token)
        if len(waiting) == left + chunk + padding:
            wav = generate_sound(m, torch.tensor([waiting]))
            sound.append(wav[..., left * 600 : -padding * 600])
            waiting, left = waiting[-2 * padding :], padding
    if waiting:
        sound.append(generate_sound(m, torch.tensor([waiting]))[..., left * 600 :])
    return torch.cat(sound, dim=-1).flatten()


def encode_sound(m, wav: torch.Tensor) -> SimpleNamespace:
    """24 kHz sound (1, t) to codes (1, T) and voice codes (1, G): the generator's mirror image.

    Rates, kernels and dilations are taken in reverse; every residual block's output is normalized with groups of
    16 channels on top of the sum so far; the voice vector branches off after the second stage.
    """
    w, q, c = m.codec["encoder"], m.codec["quantizer"], m.codec_conf
    kernels, dilations = c["resblock_kernel_sizes"][::-1], c["resblock_dilation_sizes"][::-1]
    x = _conv(w, "conv_pre", wav[:, None], padding=3)
    voice = None
    for i, (rate, size) in enumerate(zip(c["upsample_rates"][::-1], c["upsample_kernel_sizes"][::-1], strict=True)):
        x = _conv(w, f"ups.{i}", F.leaky_relu(x, 0.1), stride=rate, padding=(size - rate) // 2)
        total = 0
        for j, (kernel, dilation) in enumerate(zip(kernels, dilations, strict=True)):
            n = i * len(kernels) + j
            total = total + residual_block(w, f"resblocks.{n}", c["resblock"], x, kernel, dilation)
            norm = (w[f"normalize.{n}.weight"], w[f"normalize.{n}.bias"])
            total = F.group_norm(total, x.shape[1] // 16, *norm, eps=1e-6)
        x = total / len(kernels)
        voice = _voice(w, x, c["global_feature_conv"]) if i == 1 else voice
    latent = F.conv1d(F.leaky_relu(x), w["conv_post.weight"], w["conv_post.bias"], padding=1)
    books = [q[f"quantizer_modules_globaltokens.{j}.embedding.weight"] for j in range(c["global_code_num"])]
    parts = voice.chunk(len(books), dim=-1)
    voice_codes = [_nearest(part, book) for part, book in zip(parts, books, strict=True)]
    codes = _nearest(latent[0].T, q["quantizer_modules.0.embedding.weight"])[None]
    return SimpleNamespace(latent=latent, voice=voice, codes=codes, voice_codes=torch.stack(voice_codes, dim=-1))


def _voice(w: dict, x: torch.Tensor, conf: list) -> torch.Tensor:
    """Three convolutions, mean over time, linear layer and BatchNorm."""
    name, (*_, kernel, stride) = "GlobalTokenEncoder.", conf
    for j in (0, 2, 4):
        # A padding of one is certain for the released kernel 3 of stride 1 only.
        x = F.leaky_relu(F.conv1d(x, w[f"{name}conv.{j}.weight"], stride=stride, padding=(kernel - stride) // 2), 0.1)
    x = F.leaky_relu(_linear(w, name + "fn.0", x.mean(-1)), 0.1)
    stats = [w[f"{name}fn.2.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *stats, eps=1e-5)


def _nearest(x: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    distance = x.pow(2).sum(1, keepdim=True) + book.pow(2).sum(1) - 2 * x @ book.T
    return distance.argmin(1)


# --- the whole ---
@torch.no_grad()
def reply(m, wav: torch.Tensor, kv: DynamicCache | None = None) -> SimpleNamespace:
    """A spoken question to the answer's text and sound, with the settings of ``server.json``."""
    kv = begin(m) if kv is None else kv
    steps = listen(m, chunks := fbank_chunks(wav, 4 * m.conf["chunk_size"]), kv)
    heard = kv.get_seq_length()
    text = answer(m, kv)
    spoken, sounds, width, s = [], [], m.decoder_conf[0], m.server
    for words, hidden in text.segments:
        text_ids = m.tokenizer.encode(post_process(words))
        if not text_ids:  # nothing left to say; the released script ends with an error here
            continue
        vectors = embed(m, text_ids).reshape(1, -1, width)
        voice = speak(m, vectors, hidden.reshape(1, -1, width), s["decoder_penalty_window_size"], s["decoder_penalty"])
        voice.text, voice.text_ids = words, text_ids
        spoken.append(voice)
        if voice.tokens:
            sounds.append(codec_windows(m, voice.tokens, s["decoder_chunk_size"], s["decoder_chunk_overlap_size"]))
    return SimpleNamespace(chunks=chunks, steps=steps, heard=heard, text=text, spoken=spoken, sounds=sounds, kv=kv)
