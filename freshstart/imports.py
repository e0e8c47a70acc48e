"""Which of the project's files a module consists of, read from its import statements without running it.

Used to key checkpoints by the code that made them, and to tell DVC of the code of each door and of what is found by
name. Files that shape no output are neutral: a change in how progress is shown must not retrain a model. Nor does what
is said of a metric make it another one: a module's declarations ``METRICS`` and ``PAPER`` are no part of its digest.
"""

from __future__ import annotations

import ast
import hashlib
from functools import lru_cache
from pathlib import Path

from freshstart import files

PACKAGES = ("freshstart", "stages")
NEUTRAL = {
    "freshstart/__init__.py",
    "freshstart/allocator.py",
    "freshstart/card.py",
    "freshstart/doors.py",
    "freshstart/errors.py",
    "freshstart/imports.py",
    "freshstart/names.py",
    "freshstart/params.py",
    "freshstart/pool.py",
    "freshstart/progress.py",
    "freshstart/settings.py",
    "freshstart/reporting/__init__.py",
    "freshstart/scoring/__init__.py",
    "stages/__init__.py",
}
DECLARATIONS = {"METRICS", "PAPER"}
ROOT = Path(__file__).resolve().parents[1]


def source_files(module: str) -> set[str]:
    """Paths, from the root of the repository, of the module and all that it imports, at the top or in functions.

    What neutral files import is not followed.
    """
    paths: set[str] = set()
    waiting = [module]
    while waiting:
        path = _path(waiting.pop())
        if path is not None and path not in paths:
            paths.add(path)
            waiting.extend(_imported(path) if path not in NEUTRAL else ())
    return paths


def code_digest(*modules: str, below: str = "") -> str:
    """Digest of every file that the modules consist of, neutral ones aside; with ``below``, those of one folder."""
    return files.digest({path: sha256 for path, sha256 in digests(*modules).items() if path.startswith(below)})


def digests(*modules: str) -> dict[str, str]:
    """The same file by file, by its path from the root of the repository."""
    paths = set().union(*(source_files(module) for module in modules)) - NEUTRAL
    return {path: _digest(path) for path in sorted(paths)}


def _digest(path: str) -> str:
    """SHA-256 of a source file without its declarations, and of a text file of its name beside it."""
    source, beside = (ROOT / path).read_bytes(), (ROOT / path).with_suffix(".txt")
    lines = source.splitlines(keepends=True)
    for node in ast.parse(source).body:
        names = {ast.unparse(target) for target in getattr(node, "targets", [getattr(node, "target", None)]) if target}
        if DECLARATIONS & names:
            lines[node.lineno - 1 : node.end_lineno] = [b""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return hashlib.sha256(b"".join(lines) + (beside.read_bytes() if beside.is_file() else b"")).hexdigest()


def _path(module: str) -> str | None:
    if module.split(".")[0] not in PACKAGES:
        return None
    stem = module.replace(".", "/")
    for candidate in (f"{stem}.py", f"{stem}/__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None


@lru_cache
def _imported(path: str) -> list[str]:
    """Dotted names imported by a file, each with its packages: ``a.b`` also runs ``a``."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return sorted({".".join(name.split(".")[: i + 1]) for name in names for i in range(name.count(".") + 1)})
