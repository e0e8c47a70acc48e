"""Sampling: our sampler against ``generate`` of transformers: same model, prompts, batch and number of new tokens.

    python -m bench.sampling
    python -m bench.sampling --rows gpu

Every row is printed as one line of JSON when it is known. Without ``--rows`` the document is
``reports/bench/sampling.json``; one group of rows alone is kept beside it, as ``sampling-<rows>.json``.

``small``: a GPT-2 of 1.3 million parameters on one thread, fp32. ``mixed``: the same after prompts of 1 to 32 tokens,
which ``generate`` gets padded on the left. ``gpt2``: 124 million parameters, vocabulary 50,257, one thread, fp32.
``repeated``: the same, two prompts of 32 tokens continued 16 times each, as the measure ``prompted`` asks. ``gpu``:
``gpt2`` in bf16 on a GPU. Only torch and transformers are needed.

Both draw at temperature 0.7 from the nucleus 0.9, with a key-value cache, and never the end of text; ``generate`` has
no top_k, so that both draw from one distribution. ``forward`` is the model alone in a loop, with the cache of
``generate`` and no sampling at all. Each way is run once for some tokens and then timed in turns, every other one
backwards; a ratio is the median over turns. Weights are random, the last norm scaled so that the nucleus is neither the
whole vocabulary nor a token (``nucleus``, its mean size behind the prompts).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bench import _clock, report
from freshstart.allocator import keep_memory
from freshstart.sampling.sampler import Decoding, sample

TEMPERATURE, TOP_P, TURNS, WARM = 0.7, 0.9, 3, 2


@dataclass(frozen=True)
class Work:
    layers: int
    width: int
    heads: int
    vocabulary: int
    batch: int
    shortest: int  # prompt, in tokens
    longest: int
    tokens: int  # new ones
    scale: float  # of the last norm
    copies: int = 1  # of each prompt
    dtype: str = "float32"


GROUPS = {
    "small": Work(4, 128, 4, 4096, 256, 4, 4, 32, 8.0),
    "mixed": Work(4, 128, 4, 4096, 256, 1, 32, 32, 8.0),
    "gpt2": Work(12, 768, 12, 50257, 32, 4, 4, 16, 5.0),
    "repeated": Work(12, 768, 12, 50257, 32, 32, 32, 16, 5.0, 16),
    "gpu": Work(12, 768, 12, 50257, 256, 4, 4, 128, 5.0, dtype="bfloat16"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sampling", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", choices=GROUPS, help="one group of rows alone")
    only = parser.parse_args().rows
    chosen = [only] if only else [name for name in GROUPS if name != "gpu" or torch.cuda.is_available()]
    if only == "gpu" and not torch.cuda.is_available():
        sys.exit("--rows gpu needs a GPU that torch can use, and torch.cuda.is_available() says that there is none")
    torch.set_num_threads(1)
    keep_memory()
    rows = []
    for name in chosen:
        for row in measured(GROUPS[name], torch.device("cuda" if name == "gpu" else "cpu")):
            rows.append({"rows": name, **row})
            print(json.dumps(rows[-1]), flush=True)
    sizes = {name: asdict(GROUPS[name]) for name in chosen} | {"temperature": TEMPERATURE, "top_p": TOP_P}
    report(f"sampling-{only}" if only else "sampling", sizes | {"turns": TURNS}, rows, ("torch", "transformers"))


@torch.inference_mode()
def measured(work: Work, device: torch.device) -> Iterator[dict[str, Any]]:
    """One row a way: tokens per second, and how many times faster ours was in the same turn."""
    model = build(work).to(device)
    generator = torch.Generator().manual_seed(0)
    count = work.batch // work.copies
    lengths = torch.randint(work.shortest, work.longest + 1, (count,), generator=generator).tolist() * work.copies
    ids = torch.randint(1, work.vocabulary, (count, work.longest), generator=generator).repeat(work.copies, 1)
    prompts = [row[:length] for row, length in zip(ids.tolist(), lengths, strict=True)]
    padded = torch.tensor([[0] * (work.longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (work.longest - length) + [1] * length for length in lengths], device=device)

    def ours(tokens: int) -> None:
        sample(model, prompts, work.batch, Decoding(TEMPERATURE, TOP_P, tokens, tokens, 0, (0,)), 0)

    def generate(tokens: int) -> None:
        made = model.generate(
            padded,
            attention_mask=mask,
            do_sample=True,
            temperature=TEMPERATURE,
            top_p=TOP_P,
            top_k=0,
            use_cache=True,
            max_new_tokens=tokens,
            suppress_tokens=[0],
            pad_token_id=0,
        )
        assert made.shape[1] == work.longest + tokens

    def forward(tokens: int) -> None:
        output = model(input_ids=padded, attention_mask=mask, use_cache=True, logits_to_keep=1)
        for _ in range(tokens - 1):
            output = model(input_ids=padded[:, :1], past_key_values=output.past_key_values, use_cache=True)
        output.logits.sum().item()

    ways: dict[str, Callable[[int], None]] = {"ours": ours, "generate": generate, "forward": forward}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(TURNS + 1):
        for way in list(ways)[:: -1 if turn % 2 else 1]:
            begun = time.perf_counter()
            ways[way](work.tokens if turn else WARM)
            if turn:
                seconds[way].append(time.perf_counter() - begun)
    logits = model(input_ids=padded, attention_mask=mask, logits_to_keep=1).logits[:, -1].float() / TEMPERATURE
    ordered = logits.softmax(-1).sort(-1, descending=True).values
    nucleus = ((ordered.cumsum(-1) - ordered) < TOP_P).sum(-1).float().mean()
    yield {"parameters": model.num_parameters(), "nucleus": round(float(nucleus)), "device": name_of(device)}
    for way, spent in seconds.items():
        speed = _clock.speed(work.batch * work.tokens, spent)
        yield {"way": way, **speed, "ours_over_it": _clock.ratio(spent, seconds["ours"])}


def build(work: Work) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=work.vocabulary,
        n_positions=1024 if work.width > 128 else 128,
        n_embd=work.width,
        n_layer=work.layers,
        n_head=work.heads,
        activation_function="gelu_pytorch_tanh",
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval().to(getattr(torch, work.dtype))
    model.transformer.ln_f.weight.mul_(work.scale)
    return model


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
