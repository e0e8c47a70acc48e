"""What stages read from outside: files and folders that ``inputs`` in params.yaml names, followed by their content.

The stage ``input`` depends on what an input names. DVC keeps hashes by path, inode, size and time of change, so that
`dvc status` reads only what was written since; a changed time alone reruns nothing. The stage writes a digest of each
file, and ``settings`` puts those of the files that a block names into the settings of the stages that read them. What
is in a link to a folder is followed where an input names the link itself.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from freshstart import files
from freshstart.errors import InputError
from freshstart.settings import raise_all

BARE = ("path", "labelled", "model", "name", "start")  # keys whose words may be names of files; a column `data` is none
IN_DVC_YAML = "conf/wheels"


def listing(name: str, path: str) -> dict[str, str]:
    """SHA-256 of each file of an input, by its path below it (``.`` for a file itself), hidden files aside."""
    top = Path(path)
    if not top.exists():
        raise InputError(
            f"params.yaml: inputs.{name}: {path} is missing; what was made of it can be had without it by "
            "`dvc repro --pull --allow-missing`"
        )
    inside = [top] if top.is_file() else sorted(top.rglob("[!.]*"))
    return {file.relative_to(top).as_posix(): files.sha256(file) for file in inside if file.is_file()}


def digests(settings: Any, inputs: Mapping[str, str], folder: Path, where: str) -> dict[str, dict[str, str]]:
    """``{"inputs": a digest by path or pattern}`` of what the settings (JSON) name; empty where they name nothing here.

    ``folder`` holds what the stage ``input`` made. Raises InputError for what is here but in no input.
    """
    raise_all(unfollowed(settings, inputs, where))
    found = {}
    for _, value in _words("", settings):
        if (name := _holding(value, inputs)) is not None:
            listed = files.read_json(folder / f"{name}.json", f"input@{name}")
            inside = {
                path: digest for path, digest in listed.items() if is_below(Path(inputs[name], path), top_of(value))
            }
            found[value] = files.digest(inside)
    return {"inputs": found} if found else {}


def unfollowed(settings: Any, inputs: Mapping[str, str], where: str) -> Iterator[str]:
    """A line for each path in the settings that is here but in no input."""
    for key, value in _words("", settings):
        is_here = _may_name_files(key, value) and next(glob.iglob(value, recursive=True), None) is not None
        if is_here and _holding(value, inputs) is None:
            top = top_of(value)
            add = "put the files in a folder" if top == "." else f"add `{Path(top).stem}: {top}` there"
            yield (
                f"{': '.join(filter(None, (where, key)))} names {value}, which no entry of inputs in params.yaml "
                f"holds, so that DVC would not see it change: {add}"
            )


def _holding(value: str, inputs: Mapping[str, str]) -> str | None:
    """The name of the input that a path or pattern is in."""
    return next((name for name, path in inputs.items() if is_below(top_of(value), path)), None)


def _words(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every text in the settings, with the key that it stands behind."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for inner, below in value.items():
            yield from _words(inner, below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _words(key, below)


def _may_name_files(key: str, value: str) -> bool:
    if "\0" in value:
        return False
    return (key in BARE or bool({"/", "."} & set(value))) and not is_below(value, IN_DVC_YAML)


def top_of(value: str) -> str:
    """The path itself, or of a pattern the folder that all its matches are in."""
    if os.path.lexists(value):
        return value
    return str(Path(*takewhile(lambda part: not set("*?[") & set(part), Path(value).parts)))


def is_below(path: str | Path, top: str | Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(top))
