"""The model, its value head, its optimizers, and how it is written: the hub format and nothing else.

The vocabulary is padded to a multiple of 128, which the matrix products of a GPU like; the padding is masked whenever
text is sampled and is never a target. Initialisation is a function of the seed alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from freshstart import files, sampling
from freshstart.training import TrainSettings

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

PAD_VOCABULARY_TO = 128
EAGER_UP_TO = 256  # positions: plain attention on a CPU is faster there than the fused kernel (a step by 12-18% at 128)
MODEL_FILE = "model.safetensors"
VALUE_FILE = "value_head.safetensors"
RECORD = "freshstart.json"


class ValueHead(nn.Module):
    """The reward expected of the next token: linear in the hidden state before it, zero at first, without bias."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """(rows, positions, width) to (rows, positions), fp32."""
        return self.linear(hidden).squeeze(-1).float()


def build(settings: TrainSettings, vocabulary: int, end_of_text: int, seed: int) -> GPT2LMHeadModel:
    """A freshly initialised GPT-2 of the given shape."""
    from transformers.models.gpt2.configuration_gpt2 import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

    padded = -(-vocabulary // PAD_VOCABULARY_TO) * PAD_VOCABULARY_TO
    config = GPT2Config(
        vocab_size=padded,
        n_positions=settings.context,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.heads,
        resid_pdrop=settings.dropout,
        embd_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        use_cache=False,
        attn_implementation=attention(settings.context),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def attention(context: int) -> str:
    """Which attention kernel to use on the hardware at hand."""
    return "sdpa" if torch.cuda.is_available() or context > EAGER_UP_TO else "eager"


def token_logprobs(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """log p(target) of each position, fp32: (rows, positions, width), (vocabulary, width), (rows, positions)."""
    logits = F.linear(hidden, head).float()
    return -F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)


def optimizers(model: nn.Module, value_head: nn.Module | None, settings: TrainSettings, learning_rate: float) -> list:
    """AdamW over everything, or Muon over the blocks' matrices and AdamW over the rest; groups keep their ``base``."""
    named = [(name, p) for module in (model, value_head) if module is not None for name, p in module.named_parameters()]
    muon = [p for name, p in named if settings.optimizer == "muon" and ".h." in name and p.ndim == 2]
    taken = {id(p) for p in muon}
    matrices = [p for _, p in named if p.ndim == 2 and id(p) not in taken]
    vectors = [p for _, p in named if p.ndim != 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)]
    if muon:
        rate = settings.muon_learning_rate
        made.append(torch.optim.Muon(muon, lr=rate, weight_decay=settings.weight_decay))
    for optimizer in made:
        for group in optimizer.param_groups:
            group["base"] = group["lr"]
    return made


def save(
    folder: Path, model: GPT2LMHeadModel, value_head: nn.Module | None, unwanted: list[int], record: dict[str, Any]
) -> None:
    """Write a model folder that ``AutoModelForCausalLM.from_pretrained`` loads; ``freshstart.json`` comes last."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict() | {"use_cache": True, "dtype": "float32", "architectures": [type(model).__name__]}
    files.write_json(folder / "config.json", config)
    files.write_json(folder / "generation_config.json", generation_config(model, unwanted))
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    with files.written(folder / MODEL_FILE) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    if value_head is not None:
        with files.written(folder / VALUE_FILE) as temporary:
            save_file(value_head.state_dict(), temporary, metadata={"format": "pt"})
    files.write_json(folder / RECORD, record)


def generation_config(model: GPT2LMHeadModel, unwanted: list[int]) -> dict[str, Any]:
    """How the model is sampled when nothing is said: as the project's own sampler does it, unwanted tokens masked."""
    end_of_text = model.config.eos_token_id
    return {
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "do_sample": True,
        "temperature": sampling.TEMPERATURE,
        "top_p": sampling.TOP_P,
        "top_k": 0,
        "max_length": model.config.n_positions,
        "suppress_tokens": unwanted,
    }


def load(folder: Path | str, made_by: str) -> tuple[GPT2LMHeadModel, dict[str, Any]]:
    """A model folder and its record, in eval mode."""
    from transformers.models.gpt2.configuration_gpt2 import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    record = files.read_json(Path(folder) / RECORD, made_by)
    kernel = attention(GPT2Config.from_pretrained(folder).n_positions)
    return GPT2LMHeadModel.from_pretrained(folder, attn_implementation=kernel).eval(), record
