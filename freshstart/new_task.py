"""A task of one's own, written into params.yaml and every scale file as DVC writes YAML: comments and order stay.

It gets what every task must have: a corpus, as large as another task's at that scale, and a scorer. All else it takes
from ``every``. What it reads is named in ``inputs``, by a name that is free, so that DVC follows its content.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from freshstart import inputs, outside, params, scorers
from freshstart.errors import InputError
from freshstart.names import checked
from freshstart.scorers import learning
from freshstart.settings import kind

SIZES = ("train_characters", "heldout_characters")


def write(task: str, corpus: str, reward: str, columns: Mapping[str, str], labelled: str | None) -> list[Path]:
    """Write the blocks of a task; gives the files that have changed.

    ``columns`` names those of ``text`` and ``source`` where they are not the default; ``reward`` is module:Class or a
    kind of scorer, which learns from the ``labelled`` rows where such are named. Raises InputError, with nothing
    written, where the name is taken or the corpus or the reward can not be read.
    """
    from dvc.utils.serialize import modify_yaml

    try:
        checked(task)
    except ValueError as error:
        raise InputError(str(error)) from None
    scales = sorted(params.SCALE_FOLDER.glob("*.yaml"))
    for path in scales:
        sections = params.read_file(path)
        if taken := [name for name in params.NEEDED if task in sections[name]]:
            raise InputError(f"{path}: {taken[0]}.{task} is there already: change it there, or choose another name")
    outside.table(corpus, [columns.get("text", "text"), *([columns["source"]] if "source" in columns else [])])
    scorer: dict[str, Any] = {"kind": reward, "segments": "sentences"}
    if ":" in reward:
        scorer["version"] = scorers.scorer_class(reward).version
    else:
        settings = kind("freshstart.scorers", reward, "kind", "--reward").Settings
        if labelled is None and issubclass(settings, learning.Settings):
            raise InputError(f"--reward {reward} learns from labelled rows: name their file with --labelled")
    if labelled is not None:
        scorer["labelled"] = labelled
    for path in scales:
        with modify_yaml(path) as raw:
            sizes = next(block for block in raw["corpus"].values() if set(SIZES) <= set(block))
            raw["corpus"][task] = {"kind": "local", "path": corpus, **columns, **{name: sizes[name] for name in SIZES}}
            alike = (block for block in raw["scorer"].values() if block["kind"] == reward and labelled is None)
            raw["scorer"][task] = deepcopy(next(alike, scorer))
            raw["scorer"][task].pop(scorers.JUDGE, None)
    with modify_yaml(params.ROOT_FILE) as raw:
        if task not in raw["tasks"]:
            raw["tasks"].append(task)
        for name, path in ((task, corpus), (f"{task}-labelled", labelled or "")):
            top = inputs.top_of(path) if path else ""
            followed = any(inputs.is_below(top, held) for held in raw["inputs"].values())
            if Path(top).exists() and top not in ("", ".") and not followed:
                while name in raw["inputs"]:  # for something else
                    name += "-raw"
                raw["inputs"][name] = top
    return [params.ROOT_FILE, *scales]
