"""The processes that train one model together, and who starts them.

``FRESHSTART_LAUNCH`` says how a training stage is started; it shapes no stage and no result beyond the order in which
floats are added:

    FRESHSTART_LAUNCH="torchrun --nproc_per_node=8"         this machine's GPUs; more machines by torchrun's own words
    FRESHSTART_LAUNCH="srun --ntasks=16 --gpus-per-task=1"  inside a Slurm allocation
    FRESHSTART_LAUNCH="ray --workers=8 --gpus=1"            Ray Train's TorchTrainer, on the cluster of RAY_ADDRESS

Unset, the stage trains in its own process. ``FRESHSTART_MICRO_BATCH`` is the most rows in one forward pass of one
process (default: as many as a GPU's memory holds, freshstart/training/memory.py; all on a CPU); gradients accumulate
over the others.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshstart import files
from freshstart.errors import InputError

if TYPE_CHECKING:
    import torch

LAUNCH = "FRESHSTART_LAUNCH"
MICRO_BATCH = "FRESHSTART_MICRO_BATCH"
SLURM = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}


@dataclass(frozen=True)
class Group:
    """This process among those that train together."""

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the processes, in place."""
        if self.count > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            import torch.distributed as dist

            dist.barrier()

    def share(self, batch_size: int, fit: Callable[[], int]) -> tuple[slice, int]:
        """The rows of a batch that are this process's, and how many of them go into one forward pass.

        ``fit`` says how many rows the device holds, where nobody asks for a number.
        """
        asked = os.environ.get(MICRO_BATCH)
        if batch_size % self.count:
            raise InputError(f"train.batch_size ({batch_size}) can not be shared out evenly by {self.count} processes")
        share = batch_size // self.count
        if asked is not None and (not asked.isdigit() or not int(asked) > 0):
            raise InputError(f"{MICRO_BATCH} must be a number of rows, at least 1, found {asked!r}")
        micro = min(int(asked), share) if asked else max(n for n in range(1, min(fit(), share) + 1) if share % n == 0)
        if share % micro:
            raise InputError(f"{MICRO_BATCH} is {micro}: the {share} rows of each process are no multiple of it")
        return slice(self.rank * share, (self.rank + 1) * share), micro


@contextmanager
def joined() -> Iterator[Group]:
    """This process's group: that of torchrun, srun or Ray Train, or one of its own."""
    import torch

    by_slurm = "WORLD_SIZE" not in os.environ and os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    if by_slurm:
        os.environ.update({name: os.environ[slurm] for name, slurm in SLURM.items()})
        os.environ.setdefault("MASTER_ADDR", _first_host(os.environ["SLURM_STEP_NODELIST"]))
        os.environ.setdefault("MASTER_PORT", str(20_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local % torch.cuda.device_count()) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group(0, 1, device)
        return
    import torch.distributed as dist

    is_ours = not dist.is_initialized()  # Ray Train has begun it already
    if is_ours:
        dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if is_ours:
            dist.destroy_process_group()


@contextmanager
def on_signal(handler: Callable[[int], None]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM call ``handler`` for a while; nothing in a thread, where Ray Train runs a loop."""
    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {number: signal.signal(number, lambda number, frame: handler(number)) for number in numbers}
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


def launched(module: str, arguments: list[str]) -> bool:
    """Start ``python -m module arguments`` as FRESHSTART_LAUNCH says and wait for it; false where it says nothing.

    A signal is passed on; the processes save a checkpoint and end. Raises SystemExit where they failed, with what they
    printed on the terminal.
    """
    words = shlex.split(os.environ.pop(LAUNCH, ""))
    if not words:
        return False
    if words[0] == "torchrun":
        _run([sys.executable, "-m", "torch.distributed.run", *words[1:], "-m", module, *arguments])
    elif words[0] == "srun":
        _run([*words, sys.executable, "-m", module, *arguments])
    elif words[0] == "ray":
        _by_ray(words[1:], module, arguments)
    else:
        raise InputError(f"{LAUNCH} is {shlex.join(words)!r}: begin it with torchrun, srun or ray, or do not set it")
    return True


def _run(command: list[str]) -> None:
    try:
        running = subprocess.Popen(command)
    except FileNotFoundError:
        raise InputError(f"{LAUNCH}: {command[0]} is not on this machine") from None
    signals: list[int] = []

    def pass_on(number: int) -> None:
        signals.append(number)
        running.send_signal(signal.SIGTERM)

    with on_signal(pass_on):
        status = running.wait()
    if signals:
        raise KeyboardInterrupt
    if status:
        raise SystemExit(1)


def _by_ray(words: list[str], module: str, arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog=f"{LAUNCH}=ray", description="Ray Train's TorchTrainer", allow_abbrev=False)
    parser.add_argument("--workers", type=int, required=True, help="processes")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of each, 0 for none")
    parser.add_argument("--cpus", type=float, default=1.0, help="processors of each")
    options = parser.parse_args(words)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.base_trainer import TrainingFailedError
    from ray.train.torch import TorchTrainer

    address = os.environ.get("RAY_ADDRESS")
    variables = {name: value for name, value in os.environ.items() if name.startswith("FRESHSTART_")}
    job = {"folder": str(Path.cwd()), "module": module, "arguments": arguments, "environment": variables}
    ray.init(address=address or "local", include_dashboard=None if address else False, logging_level="ERROR")
    workers, gpus = options.workers, options.gpus
    each = {"CPU": options.cpus} | ({"GPU": gpus} if gpus else {})
    trainer = TorchTrainer(
        _in_worker,
        train_loop_config=job,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=bool(gpus), resources_per_worker=each),
        run_config=RunConfig(name=module, storage_path=str(files.state_folder("ray").resolve())),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise InputError(f"training by Ray failed: {str(error).strip().splitlines()[-1]}") from None
    finally:
        ray.shutdown()


def _in_worker(job: dict[str, Any]) -> None:
    """What each of Ray's workers runs: the same door with the same arguments, from the same folder."""
    os.chdir(job["folder"])
    sys.path.insert(0, job["folder"])
    os.environ.update(job["environment"])
    os.environ.pop(LAUNCH, None)
    sys.argv = [job["module"], *job["arguments"]]
    importlib.import_module(job["module"]).main()


def _first_host(nodes: str) -> str:
    """The first host of a Slurm node list, such as node[03-05,9] or login1,login2."""
    name, _, rest = nodes.partition("[")
    return name.split(",")[0] if "," in name or not rest else name + rest.split("]")[0].split(",")[0].split("-")[0]
