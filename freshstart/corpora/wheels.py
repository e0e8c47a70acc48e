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
    read = _python if settings.contents == "python" else _prose
    for wheel in sorted(wheels(Path(settings.requirements))):
        package = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                for document in read(archive, name, package, settings):
                    if isinstance(document, Refusal) or len(document.text) >= settings.min_document_characters:
                        yield document


def wheels(requirements: Path) -> list[Path]:
    """The wheels of a list, downloaded where they are not at hand with the right hash."""
    wanted = _wanted(requirements)
    folder = files.state_folder("wheels")
    at_hand = {files.sha256(path): path for path in folder.glob("*.whl")}
    if not set(wanted) <= set(at_hand):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", "--dest", str(folder), "-r", str(requirements)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            reason = " ".join(errors[:3]) or f"exit status {done.returncode}"
            raise InputError(
                f"{requirements}: pip could not download the wheels ({reason}). Check the connection to the package "
                f"index, or put the wheels into {folder} yourself"
            )
        at_hand = {files.sha256(path): path for path in folder.glob("*.whl")}
    missing = [name for digest, name in wanted.items() if digest not in at_hand]
    if missing:
        raise InputError(f"{requirements}: downloaded, but not with the pinned hash: {', '.join(missing)}")
    return [at_hand[digest] for digest in wanted]


def _wanted(requirements: Path) -> dict[str, str]:
    """SHA-256 to name and version of each line of the list."""
    try:
        lines = requirements.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{requirements} is missing: corpus.<task>.requirements must name a list of wheels") from None
    wanted = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = REQUIREMENT.match(line.strip())
        if match is None:
            raise InputError(
                f"{requirements}:{number}: expected `name==version --hash=sha256:<64 hex>`, found {line!r}"
            )
        wanted[match["hash"]] = f"{match['name']}=={match['version']}"
    if not wanted:
        raise InputError(f"{requirements} names no wheel")
    return wanted


def _python(archive: zipfile.ZipFile, name: str, package: str, settings: Settings) -> Iterator[Document | Refusal]:
    if not name.endswith(".py"):
        return
    raw = archive.read(name)
    path = f"{Path(archive.filename or '').name}/{name}"
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        yield Refusal(path, "not in the encoding that it declares", str(error))
        return
    yield Document(text.removeprefix("\ufeff"), package, {"path": path})


def _prose(archive: zipfile.ZipFile, name: str, package: str, settings: Settings) -> Iterator[Document | Refusal]:
    path = f"{Path(archive.filename or '').name}/{name}"
    if PROSE.search(f"/{name}"):
        try:
            text = archive.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            yield Refusal(path, "text is not UTF-8", f"byte {error.start:,}")
            return
        yield Document(text, package, {"path": path})
    elif settings.docstrings <= 1:
        for document in _python(archive, name, package, settings):
            if isinstance(document, Document):
                text = "\n\n".join(_docstrings(document.text))
                if len(text) >= settings.docstrings * len(document.text):
                    yield Document(text, package, {"path": f"{path}#docstrings"})


def _docstrings(source: str) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, kinds))
    return [inspect.cleandoc(text) for text in found if text]
