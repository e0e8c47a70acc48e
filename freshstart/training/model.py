"""The model, its value head, and how both are begun, written and read: the hub format and nothing else.

The vocabulary is padded to a multiple of 128, which the matrix products of a GPU like; the padding is masked whenever
text is sampled and is never a target. Initialisation is a function of the seed alone. The loop reads a model's last
hidden states and multiplies them with its output matrix itself; architectures that do more than that to their logits
(a soft cap, a scale) are refused.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from freshstart import files
from freshstart.errors import InputError
from freshstart.training import TrainSettings, Vocabulary, storage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PAD_VOCABULARY_TO = 128
EAGER_UP_TO = 256  # positions: plain attention on a CPU is faster there than the fused kernel (a step by 12-18% at 128)
CAUSAL = "causal_sdpa"
NEW_ROW_NOISE = 0.01
MODEL_FILE = "model.safetensors"
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout", "dropout")
VALUE_FILE = "value_head.safetensors"
RECORD = "freshstart.json"
GENERATION = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}  # the paper's, for whoever loads it


class ValueHead(nn.Module):
    """The reward expected of the next token: linear in the hidden state before it, zero at first, without bias."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """(rows, positions, width) to (rows, positions), at least fp32."""
        return _exact(self.linear(hidden).squeeze(-1))


def build(settings: TrainSettings, vocabulary: int, end_of_text: int, seed: int) -> PreTrainedModel:
    """A freshly initialised model of the given architecture and shape.

    Raises InputError for an architecture that transformers does not know or that the loop can not train.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    keys = {
        "vocab_size": _padded(vocabulary),
        "max_position_embeddings": settings.context,
        "hidden_size": settings.width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "use_cache": False,
        **dict.fromkeys(("bos_token_id", "eos_token_id"), end_of_text),
    }
    is_gpt2 = settings.architecture == "gpt2"
    keys |= dict.fromkeys(DROPOUTS[:3] if is_gpt2 else DROPOUTS[3:4], settings.dropout)
    if is_gpt2:  # its own gelu_new in one kernel instead of eight
        keys |= {"activation_function": "gelu_pytorch_tanh"}
    try:
        config = AutoConfig.for_model(settings.architecture, **(keys | settings.shape))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, attn_implementation=attention(settings.context))
    except (ValueError, TypeError) as error:
        raise InputError(f"train.architecture {settings.architecture}: {str(error).splitlines()[0]:.300}") from None
    return _checked(model, settings.architecture)


def start_from(
    start: str | Path, settings: TrainSettings, vocabulary: Vocabulary, seed: int, control: bool
) -> PreTrainedModel:
    """A pretrained model, with rows for the tokens that it does not know yet and, for ``control``, for control tokens.

    Such a row is the mean of the known ones and a little noise (Hewitt 2021; Korbak et al. 2023, code). Its end of text
    is the tokenizer's from here on. Raises InputError where the model has another shape or another vocabulary.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    kind = {"attn_implementation": attention(settings.context), "dtype": torch.get_default_dtype()}
    try:
        config = AutoConfig.from_pretrained(start, revision=settings.revision)
        for name in filter(partial(hasattr, config), DROPOUTS):
            setattr(config, name, settings.dropout)
        model = AutoModelForCausalLM.from_pretrained(start, revision=settings.revision, config=config, **kind)
    except (OSError, ValueError) as error:
        raise InputError(
            f"train.start {start}: {str(error).splitlines()[0]:.300}; name a folder, or a hub id and its revision"
        ) from None
    config = model.config
    for name, key in (("layers", "num_hidden_layers"), ("width", "hidden_size"), ("heads", "num_attention_heads")):
        if getattr(config, key) != getattr(settings, name):
            raise InputError(f"train.{name} is {getattr(settings, name)}, but {start} has {getattr(config, key)}")
    if settings.context > config.max_position_embeddings:
        raise InputError(f"train.context is {settings.context}, {start} reads {config.max_position_embeddings}")
    known = config.vocab_size
    if vocabulary.text > known:
        raise InputError(
            f"{start} has {known} tokens, the task's tokenizer {vocabulary.text} before its control tokens: set "
            "tokenizer.<task>.name to the model's own tokenizer, and end_of_text to a token of its own"
        )
    config.use_cache = False
    config.bos_token_id = config.eos_token_id = vocabulary.end_of_text
    config.pad_token_id = model.get_input_embeddings().padding_idx = None  # its row would get no gradient
    if known < vocabulary.size:
        model.resize_token_embeddings(_padded(vocabulary.size), mean_resizing=False)
    rows = sorted({*range(known, config.vocab_size), *(token.id for token in (vocabulary.controls if control else ()))})
    tables = dict.fromkeys(table.weight for table in (model.get_input_embeddings(), model.get_output_embeddings()))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for table in tables:
            noise = torch.randn(len(rows), table.shape[1], generator=generator) * NEW_ROW_NOISE
            table[rows] = table[: vocabulary.text].mean(0) + noise.to(table.dtype)
    return _checked(model, str(start))


def attention(context: int) -> str:
    """Which attention kernel to use on the hardware at hand."""
    return "sdpa" if torch.cuda.is_available() or context > EAGER_UP_TO else "eager"


def attend_causally(model: PreTrainedModel, context: int) -> None:
    """Let a model that is to be compiled attend by ``is_causal=True`` without a mask, which fused kernels need.

    Traced, transformers' own path hands an explicit mask to the kernel; run eagerly it does not. A model for which that
    is something else (a window shorter than the context, chunks) stays as it is.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register(CAUSAL, sdpa_attention_forward)  # no mask is made for a name without a mask function
    tokens = torch.arange(context, device=model.device)[None] % model.config.vocab_size
    before, training = model.config._attn_implementation, model.training
    model.eval()
    with torch.no_grad():
        masked = hidden_states(model, tokens)
        model.set_attn_implementation(CAUSAL)
        if not torch.allclose(masked, hidden_states(model, tokens), rtol=1e-3, atol=1e-4):
            model.set_attn_implementation(before)
    model.train(training)


def hidden_states(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """The last hidden states, (rows, positions, width), of a model read from its first token."""
    return model.base_model(input_ids=tokens, use_cache=False).last_hidden_state


def token_logprobs(hidden: Tensor, head: Tensor, targets: Tensor, chunk: int = 0) -> Tensor:
    """log p(target) of each position, at least fp32: (rows, positions, width), (vocabulary, width), (rows, positions).

    With ``chunk``, the logits of that many positions exist at a time and are computed again for the gradient.
    """
    from torch.utils.checkpoint import checkpoint

    def of(hidden: Tensor, targets: Tensor) -> Tensor:
        return -F.cross_entropy(_exact(F.linear(hidden, head)), targets, reduction="none")

    flat, wanted = hidden.flatten(0, 1), targets.flatten()
    if not chunk or chunk >= len(flat):
        return of(flat, wanted).view_as(targets)
    pieces = zip(flat.split(chunk), wanted.split(chunk), strict=True)
    return torch.cat([checkpoint(of, *piece, use_reentrant=False) for piece in pieces]).view_as(targets)


def save(folder: Path, model: PreTrainedModel, value_head: nn.Module | None, record: dict[str, Any]) -> None:
    """Write a model folder that ``AutoModelForCausalLM.from_pretrained`` loads; ``freshstart.json`` comes last.

    Where nothing is said, it is sampled as the project's own sampler does it: what the record calls unwanted is masked.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict() | {"use_cache": True, "dtype": "float32", "architectures": [type(model).__name__]}
    files.write_json(folder / "config.json", config)
    generation = {
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), model.config.eos_token_id),
        **GENERATION,
        "max_length": model.config.max_position_embeddings,
        "suppress_tokens": record["unwanted"],
    }
    files.write_json(folder / "generation_config.json", generation)
    head = model.get_output_embeddings().weight
    again = [name for name, p in model.named_parameters(remove_duplicate=False) if p is head][1:]  # where it is tied
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in again}
    with storage.written(folder / MODEL_FILE) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    if value_head is not None:
        with storage.written(folder / VALUE_FILE) as temporary:
            save_file(value_head.state_dict(), temporary, metadata={"format": "pt"})
    storage.write_record(folder / RECORD, record)


def read_record(folder: Path, made_by: str) -> dict[str, Any]:
    """The record of a model folder that the stage ``made_by`` wrote; InputError unless all its files are whole."""
    return storage.read_record(folder / RECORD, f"run `dvc checkout`, or `dvc repro -f {made_by}`")


def load(folder: Path, made_by: str) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model folder and its record, in eval mode."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    record = read_record(folder, made_by)
    kernel = attention(AutoConfig.from_pretrained(folder).max_position_embeddings)
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=kernel).eval(), record


def _padded(vocabulary: int) -> int:
    return -(-vocabulary // PAD_VOCABULARY_TO) * PAD_VOCABULARY_TO


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _checked(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """The model, if its logits are its last hidden states times its output matrix."""
    tokens = torch.arange(2, device=model.device)[None]
    training = model.training
    model.eval()
    with torch.no_grad():
        ours = F.linear(hidden_states(model, tokens), model.get_output_embeddings().weight)
        theirs = model(input_ids=tokens, use_cache=False).logits
    model.train(training)
    capped = getattr(model.config, "final_logit_softcapping", None) is not None  # too weak to see in small logits
    if capped or not torch.allclose(ours.double(), theirs.double(), rtol=1e-3, atol=1e-4):
        raise InputError(f"{name} computes its logits in a way of its own (a scale, a soft cap, a bias): not supported")
    return model
