"""Documents from a dataset on the Hugging Face hub, at a pinned commit.

``datasets`` says which files make up a split, ``huggingface_hub`` downloads them one by one into its cache below
``.state/hub``, and their rows are read there as the kind ``local`` reads them, one at a time. A stage that was killed
goes on with the file that it was fetching. Once fetched, files serve every task, seed and budget without a network.

The build chooses documents by content, for which it must see all of them: without ``most_documents`` the whole split
is fetched, whatever ``train_characters`` says. With it the corpus is drawn from the first rows of the split in the
order of its files, and later files are not fetched; that is a fair sample only of a set that was shuffled before it
was published. Files are fetched whole, with columns that are not read.

A token for private sets is read from HF_TOKEN alone, a mirror's address from HF_ENDPOINT.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from freshstart import files
from freshstart.corpora import CorpusSettings, Document, Refusal, local
from freshstart.errors import InputError
from freshstart.settings import known

Result = TypeVar("Result")
WAITS = (5.0, 20.0)  # seconds between tries; the libraries themselves repeat some calls, but not all
NETWORK_ERRORS = {"TransportError", "LocalEntryNotFoundError", "ConnectionError", "TimeoutError"}
# The fields of a configuration that do not say how its files are read.
DESCRIPTIVE = {"name", "version", "data_dir", "data_files", "description", "features"}
LEFT_BEHIND = 86_400.0  # seconds without a change, after which an unfinished download is that of a killed process


@dataclass(frozen=True, kw_only=True)
class HubSettings(CorpusSettings):
    """Which rows of the hub: ``name`` (owner/name), ``configuration`` (needed where the set has several), ``split``,
    ``revision`` (the full commit), ``files`` (paths or patterns inside the repository, in place of a configuration).
    ``most_documents`` takes the first rows of the split alone. ``source`` names a column, or a field of one
    (``meta.name``); without it all documents share one source, and what is held out is drawn document by document."""

    name: str
    revision: str
    split: str = "train"
    configuration: str | None = None
    files: tuple[str, ...] = ()
    most_documents: int | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.name):
            raise ValueError(f"name must be owner/name as in the address of the dataset's page, found {self.name!r}")
        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"revision must be a full commit (40 hex digits), since a branch moves; found {self.revision!r}. "
                f'https://huggingface.co/datasets/{self.name}/commits/main lists the commits, and `python -c "from '
                f"huggingface_hub import HfApi; print(HfApi().dataset_info('{self.name}').sha)\"` prints the last one"
            )
        if not re.fullmatch(r"\w[\w.-]*", self.split):
            raise ValueError(f"split must be the name of one split, without slices or sums, found {self.split!r}")
        if self.files and self.configuration is not None:
            raise ValueError("configuration and files cannot both be set: files take the place of a configuration")
        if self.most_documents is not None and self.most_documents < 2:
            raise ValueError(f"most_documents must be at least 2, found {self.most_documents}")

    @property
    def where(self) -> str:
        return f"hub dataset {self.name} at {self.revision[:12]}"

    @property
    def source_steps(self) -> list[str]:
        return [] if self.source is None else self.source.split(".")


@dataclass(frozen=True, kw_only=True)
class Settings(HubSettings):
    """``text`` names the column of the documents."""

    text: str = "text"


def documents(settings: Settings, seed: int) -> Iterator[Document | Refusal]:
    """Every document of the split, in the order of its files."""
    for place, row in rows(settings, [settings.text]):
        yield local.document(place, row, settings.text, settings.source_steps, settings.name)


def rows(settings: HubSettings, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    """The rows of the split (these columns and the source's) with where each stands, as ``owner/name/file:row``.

    A file is fetched when its turn comes.
    """
    columns = sorted({*columns, *settings.source_steps[:1]})
    count = 0
    for name in split_files(settings):
        path = _fetched(settings, name)
        try:
            for place, row in local.rows(path, columns, settings.longest_row):
                place = f"{settings.name}/{name}:{place.rpartition(':')[2]}"
                yield place, replace(row, where=place) if isinstance(row, Refusal) else row
                count += 1
                if count == settings.most_documents:
                    return
        except InputError as error:
            raise InputError(f"{settings.where}: {error}") from None


def split_files(settings: HubSettings) -> list[str]:
    """The paths of the split's files in their repository; the hub is asked once, and the answer is kept."""
    question = [settings.name, settings.configuration, settings.revision, settings.split, settings.files]
    listing = files.state_folder("hub", "files") / f"{files.digest(question)[:20]}.json"
    if not listing.exists():
        files.write_json(listing, _tried(settings, lambda: _resolved(settings)))
    return files.read_json(listing, "corpus")


def _resolved(settings: HubSettings) -> list[str]:
    import datasets

    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # a request to another host
    builder = datasets.load_dataset_builder(
        settings.name,
        settings.configuration,
        revision=settings.revision,
        data_files={settings.split: list(settings.files)} if settings.files else None,
        token=os.environ.get("HF_TOKEN") or False,
        cache_dir=str(files.state_folder("hub", "datasets")),
    )
    config, standard = builder.config, builder.BUILDER_CONFIG_CLASS()
    splits = {str(split): list(map(str, paths)) for split, paths in (config.data_files or {}).items()}
    root = f"hf://datasets/{settings.name}@{settings.revision}/"
    paths = splits[known(settings.split, splits, "split", settings.where)]
    for path in paths:
        if not path.startswith(root):  # a folder of that name, or a mirror that ignores the revision
            raise InputError(f"{settings.where}: expected files below {root}, found {path}")
        local.check_name(Path(settings.name, path.removeprefix(root)))
    names = {field.name for field in fields(config)} - DESCRIPTIVE
    options = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(standard, name)}
    if options and not (options == {"sep": "\t"} and all(".tsv" in path for path in paths)):
        raise InputError(
            f"{settings.where}: its configuration has reading options that are not known here ({options}): download "
            "its files, convert them to JSON lines and use kind: local"
        )
    return [path.removeprefix(root) for path in paths]


def _fetched(settings: HubSettings, name: str) -> Path:
    """The path of one file of the repository in the cache, downloaded where it is not there."""
    from huggingface_hub import hf_hub_download, logging, try_to_load_from_cache

    cache = files.state_folder("hub")
    file = {"repo_id": settings.name, "filename": name, "repo_type": "dataset", "revision": settings.revision}
    path = try_to_load_from_cache(**file, cache_dir=cache)
    if isinstance(path, str):
        return Path(path)
    for unfinished in cache.glob("datasets--*/blobs/*.incomplete"):  # a download begins anew under another name
        with suppress(FileNotFoundError):
            if time.time() - unfinished.stat().st_mtime > LEFT_BEHIND:
                unfinished.unlink()
    logging.set_verbosity_error()
    print(f"{settings.where}: fetching {name}", file=sys.stderr, flush=True)
    token = os.environ.get("HF_TOKEN") or False
    return Path(_tried(settings, lambda: hf_hub_download(**file, cache_dir=cache, token=token)))


def _tried(settings: HubSettings, call: Callable[[], Result]) -> Result:
    """The result of a call to the hub, repeated where the network fails; InputError for what a person can put right."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.constants import ENDPOINT, is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError

    tries = 0
    while True:
        tries += 1
        try:
            return call()
        except InputError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
            if _may_pass(error) and tries <= len(WAITS) and not is_offline_mode():
                wait = WAITS[tries - 1]
                print(f"{settings.where}: {reason}; trying again in {wait:.0f} s", file=sys.stderr, flush=True)
                time.sleep(wait)
            elif _may_pass(error):
                raise InputError(
                    f"{settings.where}: {ENDPOINT} could not be read after {tries} {'tries' if tries > 1 else 'try'} "
                    f"({reason}). The files fetched so far are kept in {files.state_folder('hub')}: run the same "
                    "command again to go on. HF_ENDPOINT names a mirror; without a network copy that folder from a "
                    "machine that has fetched the set, or use kind: local on its files"
                ) from error
            elif isinstance(error, (DatasetsError, HfHubHTTPError, FileNotFoundError)):
                raise InputError(
                    f"{settings.where}: not found or not open to you ({reason}). Check name, revision and files; for a "
                    "private or gated set put a token into the environment as HF_TOKEN"
                ) from error
            elif isinstance(error, ValueError):  # an unknown configuration: the library lists what there is
                raise InputError(f"{settings.where}: {reason}") from error
            else:
                raise


def _may_pass(error: BaseException | None) -> bool:
    """Whether an error is one of the network, or of a server that may recover."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__
    for link in chain:
        status = getattr(getattr(link, "response", None), "status_code", None)
        if status is not None:
            return status in (408, 429) or status >= 500
    bases = {base.__name__ for link in chain for base in type(link).__mro__}
    return bool(bases & NETWORK_ERRORS) or type(chain[0]) is RuntimeError  # which is what hf_xet raises
