"""transformers.Trainer on the same rows: what a user of the hub would write, at the same work.

GPT-2 as the library configures it (its own attention, its activation of eight operations), without dropout, as in the
other ways; a torch ``Dataset`` of the rows, its default collator and sampler, fused AdamW, no checkpoints, no reports.
Labels are the inputs, as the library wants them: it shifts them itself, so that the last position of a row has logits
and no target.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.utils.data import Dataset

from freshstart.training import TrainSettings

MISSING = None if find_spec("accelerate") else "transformers.Trainer needs accelerate: pip install accelerate"


class RowsOf(Dataset):
    """Rows of ``context`` tokens of a ``.npy`` file."""

    def __init__(self, file: Path, context: int):
        self.tokens, self.context = np.load(file, mmap_mode="r"), context

    def __len__(self) -> int:
        return len(self.tokens) // self.context

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        cut = self.tokens[row * self.context : (row + 1) * self.context].astype(np.int64)
        return {"input_ids": torch.from_numpy(cut), "labels": torch.from_numpy(cut)}


def train(file: Path, settings: TrainSettings, vocabulary: int, steps: int) -> int:
    """Train on the tokens of a file, on the CPU; gives the number of parameters."""
    from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments

    torch.set_num_threads(settings.threads)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=settings.context,
            n_embd=settings.width,
            n_layer=settings.layers,
            n_head=settings.heads,
            resid_pdrop=settings.dropout,
            embd_pdrop=settings.dropout,
            attn_pdrop=settings.dropout,
            bos_token_id=vocabulary - 1,
            eos_token_id=vocabulary - 1,
            use_cache=False,
        )
    )
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=settings.precision == "bf16",
            max_steps=steps,
            per_device_train_batch_size=settings.batch_size,
            optim="adamw_torch_fused",
            learning_rate=settings.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=round(settings.warmup * steps),
            weight_decay=settings.weight_decay,
            adam_beta1=settings.beta1,
            adam_beta2=settings.beta2,
            max_grad_norm=settings.gradient_clip,
            logging_steps=settings.log_every,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=RowsOf(file, settings.context))
        trainer.remove_callback(PrinterCallback)  # standard output is the bench's own
        trainer.train()
    if torch.get_num_threads() != settings.threads:
        raise RuntimeError(f"the Trainer ran with {torch.get_num_threads()} threads, asked were {settings.threads}")
    return sum(p.numel() for p in model.parameters())
