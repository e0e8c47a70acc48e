"""What all doors share: their arguments, and how they end.

A door prints an ``InputError`` in one line and exits with 1; Ctrl-C and SIGTERM exit with 130; a full disk and a
read-only folder get a line of their own. Everything else is a defect of this project and keeps its traceback.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from freshstart.errors import NO_SPACE, READ_ONLY, InputError
from freshstart.names import checked, is_arm, objective_of, share_of
from freshstart.pool import worker_count

INTERRUPTED = 130
HELP = {
    "task": "one of tasks in params.yaml",
    "objective": "one of objectives in params.yaml",
    "name": "one of inputs or external in params.yaml",
    "benchmark": "one of benchmarks in params.yaml",
    "share": "share of mle's budget after which finetuning begins, one of finetuned_from in params.yaml",
    "seed": "seed of the initialisation, the order of the data and the sampling",
    "workers": "Ray workers; 0 runs in this process (default: FRESHSTART_WORKERS, else one a processor)",
}
PATHS = {
    "corpus": "folder with the corpus parts",
    "heldout": "folder with the scored held-out parts",
    "mle": "folder of the task's mle model",
    "model": "folder of the model",
    "reference": "folder of the reference's texts",
    "scorer": "folder of the scorer",
    "shards": "folder of the objective's shards",
    "tokenizer": "folder of the tokenizer",
    "tokens": "folder with the token streams",
}


def arguments(door: str, names: str = "", **paths: str) -> argparse.Namespace:
    """Read a door's command line: ``names``, words of HELP and PATHS in a line, and ``paths`` with their help."""
    parser = argparse.ArgumentParser(
        description=door, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for name in (name for name in names.split() if name not in PATHS):
        kind = {"seed": int, "workers": int, "share": float}.get(name, _name)
        default = worker_count() if name == "workers" else None
        parser.add_argument(f"--{name}", required=name != "workers", type=kind, default=default, help=HELP[name])
    for name, text in ({name: PATHS[name] for name in names.split() if name in PATHS} | paths).items():
        parser.add_argument(f"--{name.replace('_', '-')}", required=True, type=Path, help=text)
    return parser.parse_args()


def open_door(main: Callable[[], None]) -> None:
    """Run a door's ``main`` and turn its end into an exit status.

    SIGTERM is treated like Ctrl-C, so that a stopped job cleans up in the same way as one that a person interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        main()
    except InputError as error:
        _leave(f"error: {error}", 1)
    except KeyboardInterrupt:
        _leave("interrupted: what was finished is kept; run the same command again to go on", INTERRUPTED)
    except BrokenPipeError:  # the reader has seen enough: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno in READ_ONLY:
            reason = os.strerror(error.errno)
            _leave(f"error: {error.filename}: {reason}. Make it writable and run the same command again", 1)
        if error.errno not in NO_SPACE:
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        _leave(
            f"error: no space left on the disk{where} ({os.strerror(error.errno)}). Nothing that was finished is "
            "lost: free some space (`dvc gc --workspace` and deleting .state both help) and run the same command again",
            1,
        )


def _name(value: str) -> str:
    try:
        if is_arm(value):
            share_of(value)
        checked(objective_of(value))
        return value
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _leave(message: str, status: int) -> None:
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    sys.exit(status)
