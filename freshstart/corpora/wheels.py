"""Documents from pinned Python wheels: their source files, or the prose that they ship.

The wheels are downloaded through pip from a list of exact versions with SHA-256 hashes, and read as the archives that
they are: nothing is installed and nothing in them is executed. ``python`` gives every ``.py`` file as one document;
``prose`` gives the metadata, the texts that packages ship for people (readme, changes, licence, authors, anything in
Markdown or reStructuredText; not ``.txt`` files of data) and, for modules that have enough of it, one document of
docstrings a module. The source of a document is its package.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import subprocess
import sys
import tokenize
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from freshstart import files
from freshstart.corpora import CorpusSettings, Document, Refusal
from freshstart.errors import InputError
from freshstart.settings import listed

PROSE = re.compile(
    r"""/(METADATA
        |(AUTHORS|CHANGE\w*|CODE_OF_CONDUCT|CONTRIBUTING|CONTRIBUTORS|COPYING|CREDITS|HISTORY|LICEN[CS]E|NEWS|NOTICE
         |README|SECURITY|THANKS)[^/.]*(\.(md|rst|txt))?
        |[^/]*\.(md|rst))$""",
    re.IGNORECASE | re.VERBOSE,
)
REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+) --hash=sha256:(?P<hash>[0-9a-f]{64})$")


@dataclass(frozen=True, kw_only=True)
class Settings(CorpusSettings):
    """``requirements`` is the list of wheels; ``docstrings`` is the least share of a module's text that its docstrings
    must make up to be a document of prose (above 1: none are)."""

    requirements: str
    contents: Literal["python", "prose"]
    docstrings: float = 2.0
    min_document_characters: int = 200


def documents(settings: Settings, seed: int) -> Iterator[Document | Refusal]:
    """Every document of the wheels, wheel by wheel in the order of their names."""
    for wheel in sorted(wheels(Path(settings.requirements))):
        package = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                member, item = (f"{wheel.name}/{name}", package), None
                if settings.contents == "prose" and PROSE.search(f"/{name}"):
                    item = _prose(archive.read(name), *member)
                elif settings.contents == "python" and name.endswith(".py"):
                    item = _python(archive.read(name), *member)
                elif settings.docstrings <= 1 and name.endswith(".py"):
                    item = _docstrings(archive.read(name), *member, settings.docstrings)
                if isinstance(item, Refusal) or (item and len(item.text) >= settings.min_document_characters):
                    yield item


def wheels(requirements: Path) -> list[Path]:
    """The wheels of a list, downloaded where they are not at hand with the right hash."""
    pinned = _pinned(requirements)
    folder = files.state_folder("wheels")
    at_hand = {files.sha256(path): path for path in folder.glob("*.whl")}
    if not set(pinned) <= set(at_hand):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", "--dest", str(folder), "-r", str(requirements)]
        pip = subprocess.run(command, capture_output=True, text=True, check=False)
        if pip.returncode != 0:
            errors = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")] or pip.stderr.splitlines()
            reason = " ".join(errors[:3]) or f"exit status {pip.returncode}"
            raise InputError(
                f"{requirements}: pip could not download the wheels ({reason}). Check the connection to the package "
                f"index, or put the wheels into {folder} yourself"
            )
        at_hand = {files.sha256(path): path for path in folder.glob("*.whl")}
    missing = [name for digest, name in pinned.items() if digest not in at_hand]
    if missing:
        raise InputError(f"{requirements}: downloaded, but not with the pinned hash: {listed(missing)}")
    return [at_hand[digest] for digest in pinned]


def _pinned(requirements: Path) -> dict[str, str]:
    """SHA-256 to name and version of each line of the list."""
    if not requirements.is_file():
        raise InputError(f"{requirements} is missing: corpus.<task>.requirements must name a list of wheels")
    pinned = {}
    for number, line in enumerate(requirements.read_text(encoding="utf-8").splitlines(), 1):
        if match := REQUIREMENT.match(line.strip()):
            pinned[match["hash"]] = f"{match['name']}=={match['version']}"
        elif line.strip() and not line.startswith("#"):
            raise InputError(
                f"{requirements}:{number}: expected `name==version --hash=sha256:<64 hex>`, found {line!r}"
            )
    if not pinned:
        raise InputError(f"{requirements} names no wheel")
    return pinned


def _prose(raw: bytes, path: str, package: str) -> Document | Refusal:
    try:
        return Document(raw.decode("utf-8-sig"), package, {"path": path})
    except UnicodeDecodeError as error:
        return Refusal(path, "text is not UTF-8", f"byte {error.start:,}")


def _python(raw: bytes, path: str, package: str) -> Document | Refusal:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return Document(raw.decode(encoding).removeprefix("\ufeff"), package, {"path": path})
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        return Refusal(path, "not in the encoding that it declares", str(error))


def _docstrings(raw: bytes, path: str, package: str, least: float) -> Document | None:
    """The docstrings of a module, where they make up at least this share of its text; a broken module has none."""
    module = _python(raw, path, package)
    if isinstance(module, Refusal):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(module.text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = (ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, kinds))
    text = "\n\n".join(inspect.cleandoc(text) for text in texts if text)
    return Document(text, package, {"path": f"{path}#docstrings"}) if len(text) >= least * len(module.text) else None
