"""Typed settings: mappings read into dataclasses, and the files of a room that count as its kinds.

The dataclasses live in the room that uses them and check their own ranges in ``__post_init__``, so that a room can be
used without ``params``. Unknown keys are refused with the nearest known one.
"""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from freshstart import files
from freshstart.errors import InputError

Model = TypeVar("Model")


def build(model: type[Model], raw: Any, where: str, places: Mapping[str, str] | None = None) -> Model:
    """Read a mapping that a person wrote into a dataclass. InputError says all that is wrong with it, a line each.

    ``where`` (file and keys) opens every message; ``places`` says where each key stands, if not there.
    """
    from pydantic import ValidationError

    if not isinstance(raw, Mapping):
        raise InputError(f"{where} must be a mapping, found {raw!r}")
    places = places or {}
    names = {field.name: field for field in fields(model)}  # type: ignore[arg-type]
    problems: list[str] = []
    for key in raw:
        with collected(problems):
            known(str(key), names, "key", places.get(key, where))
    for name, field in names.items():
        if name not in raw and field.default is MISSING and field.default_factory is MISSING:
            problems.append(f"{where}.{name} is missing: it has no default")
    try:  # by way of JSON: its strict mode takes lists for tuples, but neither "1" nor true for 1
        built = _adapter(model).validate_json(json.dumps(dict(raw)), strict=True, extra="forbid")
    except TypeError as error:
        problems.append(f"{where}: {error}")
    except ValidationError as errors:
        problems += [
            _problem(error, places.get(next(iter(error["loc"]), ""), where))
            for error in errors.errors()
            if not error["loc"] or (error["loc"][0] in names and error["loc"][0] in raw)  # the others are said above
        ]
    raise_all(problems)
    return built


def _problem(error: Mapping[str, Any], where: str) -> str:
    place = ".".join([where, *(str(step) for step in error["loc"])])
    message = error["msg"].removeprefix("Value error, ").replace("Unexpected keyword argument", "unknown key")
    found = "" if error["type"] == "value_error" else f", found {error['input']!r}"
    if error["type"] == "tuple_type":
        message, found = "must be a list", f": write [{error['input']}]"
    return f"{place}: {message}{found}"


@contextmanager
def collected(problems: list[str]) -> Iterator[None]:
    """Go on after an InputError, with its lines among the problems."""
    try:
        yield
    except InputError as error:
        problems += str(error).split("\n")


def raise_all(problems: Iterable[str]) -> None:
    """Raises InputError with the problems, a line each and each once, if there are any."""
    if lines := dict.fromkeys(problems):
        raise InputError("\n".join(lines))


@lru_cache
def _adapter(model: type[Model]) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    model.__pydantic_config__ = ConfigDict(allow_inf_nan=False)  # type: ignore[attr-defined]
    return TypeAdapter(model)


def read(path: Path | str, model: type[Model], made_by: str) -> Model:
    """The settings in a file that the stage settings wrote."""
    return restore(model, files.read_json(path, made_by)["settings"])


def restore(model: type[Model], raw: Mapping[str, Any]) -> Model:
    """A dataclass from what ``asdict`` made of it, after a way through JSON. Needs no other package."""
    hints = get_type_hints(model)

    def value(name: str, plain: Any) -> Any:
        inner = next((hint for hint in (hints[name], *get_args(hints[name])) if is_dataclass(hint)), None)
        if inner is not None and isinstance(plain, Mapping):
            return restore(inner, plain)
        return tuple(plain) if isinstance(plain, list) else plain

    return model(**{name: value(name, plain) for name, plain in raw.items()})


def mapping(block: Any, where: str) -> Mapping[str, Any]:
    """The block, empty where YAML has nothing behind its key."""
    if block is None:
        return {}
    if not isinstance(block, Mapping):
        raise InputError(f"{where} must be a mapping, found {block!r}")
    return block


def kind(package: str, name: str, what: str, where: str) -> Any:
    """The module of a kind: scorers, objectives, corpora, measures and judges are files, and their names are keys."""
    return importlib.import_module(f"{package}.{known(name, kinds(package), what, where)}")


@lru_cache
def kinds(package: str) -> list[str]:
    """The files of a room that are kinds: those that define what ``KIND`` of its package says. Others are its tools."""
    room = importlib.import_module(package)
    paths = sorted(Path(room.__path__[0]).glob("[a-z]*.py"))
    return [path.stem for path in paths if f"\n{room.KIND}" in path.read_text("utf-8")]


def known(name: str, names: Iterable[str], what: str, where: str) -> str:
    """The name, if it is one of ``names``; else InputError with the nearest of them."""
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"{where}: unknown {what} {name!r}; {hint}known: {listed(names)}")
    return name


def listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names))
