"""Documents from a dataset on the Hugging Face hub, streamed at a pinned commit.

``datasets`` streams the rows file by file. They are kept as they arrive, in Parquet chunks below ``.state/hub``, and
after each chunk it is written down how far the stream has come: a stage that was killed goes on there. Inside a file
the library can not start in the middle, so that what is fetched twice is at most the beginning of the file that was
being read. (It has a state of its own, ``state_dict``; with a batch size other than before that one loses rows.) Once
fetched, the rows are read from the chunks, and a later run (another budget, another seed, another task) needs no
network; a greater ``most_documents`` goes on behind the last row.

The build chooses documents by content, for which it must see all of them: without ``most_documents`` the whole split
is fetched, whatever ``train_characters`` says. With it the corpus is drawn from the first rows of the split in the
order of its files, which is a fair sample only of a set that was shuffled before it was published.

Memory: one batch of rows and one chunk, and for Parquet files one row group as stored. Disk: the chosen columns once,
with zstd. Tries that fail are repeated a few times with a pause. A token for private sets is read from HF_TOKEN alone,
a mirror's address from HF_ENDPOINT.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from freshstart import files
from freshstart.corpora import CorpusSettings, Document, Refusal
from freshstart.errors import InputError
from freshstart.progress import Progress

if TYPE_CHECKING:
    from datasets import IterableDataset

CHUNK_BYTES = 32_000_000
CHUNK_SECONDS = 20.0  # on a slow line a chunk is written earlier
BATCH_ROWS = 200
WAITS = (5.0, 20.0)  # seconds between tries; each of them holds five of the library's own, 23 seconds together
NETWORK_ERRORS = {"TransportError", "ClientError", "LocalEntryNotFoundError"}  # httpx, aiohttp, huggingface_hub
PROGRESS = "progress.json"


@dataclass(frozen=True, kw_only=True)
class HubSettings(CorpusSettings):
    """Which rows of the hub: ``name`` (owner/name), ``configuration`` (needed where the set has several), ``split``,
    ``revision`` (the full commit), ``files`` (paths or patterns inside the repository, in place of a configuration).
    ``most_documents`` fetches the first rows of the split alone."""

    name: str
    revision: str
    split: str = "train"
    configuration: str | None = None
    files: tuple[str, ...] = ()
    most_documents: int | None = None

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
            raise ValueError("configuration and files can not both be set: files stand in for a configuration")
        if self.most_documents is not None and self.most_documents < 2:
            raise ValueError(f"most_documents must be at least 2, found {self.most_documents}")

    @property
    def where(self) -> str:
        return f"hub dataset {self.name} at {self.revision[:12]}"


@dataclass(frozen=True, kw_only=True)
class Settings(HubSettings):
    """``text`` and ``source`` name columns; ``source: meta.name`` reads a field of a column. Without ``source`` all
    documents share one, and what is held out is drawn document by document."""

    text: str = "text"
    source: str | None = None


@dataclass
class Fetched:
    """What has been fetched: ``rows`` in ``chunks`` files. The stream goes on in file ``file`` behind row ``row``."""

    folder: Path
    rows: int = 0
    chunks: int = 0
    file: int = 0
    row: int = 0
    done: bool = False
    library: str = ""
    waiting: list[pa.Table] = field(default_factory=list)
    written: float = 0.0

    @classmethod
    def load(cls, folder: Path) -> Fetched:
        saved = files.read_json(folder / PROGRESS, "corpus") if (folder / PROGRESS).exists() else {}
        return cls(folder, **saved, written=time.monotonic())

    def add(self, table: pa.Table) -> None:
        """Take the next rows of the file."""
        self.row += len(table)
        self.waiting.append(table)
        late = time.monotonic() - self.written > CHUNK_SECONDS
        if late or sum(held.nbytes for held in self.waiting) >= CHUNK_BYTES:
            self.save()

    def next_file(self) -> None:
        self.file, self.row = self.file + 1, 0
        if not self.waiting:
            self.save()

    def save(self) -> None:
        """Write what waits as one chunk, and then that it is there."""
        if self.waiting:
            table = pa.concat_tables(self.waiting)
            files.write_table(self.folder / _chunk(self.chunks), table)
            self.rows, self.chunks, self.waiting = self.rows + len(table), self.chunks + 1, []
        saved = {name: getattr(self, name) for name in ("rows", "chunks", "file", "row", "done", "library")}
        files.write_json(self.folder / PROGRESS, saved)
        self.written = time.monotonic()

    def enough(self, most: int | None) -> bool:
        held = self.rows + sum(map(len, self.waiting))
        return self.done or (most is not None and held >= most)


def documents(settings: Settings, seed: int) -> Iterator[Document | Refusal]:
    """Every document of the split, in the order of its files."""
    source = settings.source.split(".") if settings.source is not None else []
    for place, row in rows(settings, [settings.text, *source[:1]]):
        if isinstance(row, Refusal):
            yield row
            continue
        text = row[settings.text]
        if not isinstance(text, str):
            yield Refusal(place, "no text", f"column {settings.text} holds {str(text)[:100]!r}")
            continue
        yield Document(text, source_of(row, source) or settings.name, {"path": place})


def source_of(row: dict[str, Any], steps: Sequence[str]) -> str:
    """The value of ``column.field.field`` as text; empty where no column is named or the value is null."""
    value: Any = row if steps else None
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    return "" if value is None else str(value)


def rows(settings: HubSettings, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    """The rows of the split with where each stands (``name/split:row``), fetched first where they are not at hand."""
    columns = sorted(set(columns))
    fetched = fetch(settings, columns)
    number = 0
    for index in range(fetched.chunks):
        path = fetched.folder / _chunk(index)
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=BATCH_ROWS):
                    for row in _decoded(batch):
                        number += 1
                        if settings.most_documents is not None and number > settings.most_documents:
                            return
                        place = f"{settings.name}/{settings.split}:{number}"
                        yield place, Refusal(place, "text is not UTF-8", row) if isinstance(row, str) else row
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{path} can not be read ({reason}): delete {fetched.folder}; it will be fetched anew"
            ) from None


def _decoded(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    """The rows as Python has them; in place of one that is not UTF-8, what is wrong with it."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(len(batch)):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield f"byte {error.start:,}"


def fetch(settings: HubSettings, columns: Sequence[str]) -> Fetched:
    """Bring the rows to the disk, going on where an earlier run stopped. Raises InputError where that can not be."""
    wanted = [settings.name, settings.configuration, settings.revision, settings.split, settings.files, columns]
    folder = files.state_folder("hub", files.digest(wanted)[:20])
    with _alone(folder):
        fetched = Fetched.load(folder)
        if not fetched.enough(settings.most_documents):
            for left in folder.glob(".*.tmp"):
                left.unlink()
            fetched = _stream(fetched, settings, columns)
    return fetched


def _stream(fetched: Fetched, settings: HubSettings, columns: Sequence[str]) -> Fetched:
    import datasets
    from huggingface_hub.constants import HF_HUB_OFFLINE

    _quieten()
    if fetched.library != datasets.__version__:  # which may order the files in another way
        fetched = Fetched(fetched.folder, library=datasets.__version__, written=time.monotonic())
        fetched.save()
    tries = 0
    with Progress(f"fetching {settings.name}", settings.most_documents, "rows") as shown:
        shown.advance(fetched.rows)
        while not fetched.enough(settings.most_documents):
            try:
                for table in _tables(settings, columns, fetched.file, fetched.row):
                    if table is None:
                        fetched.next_file()
                        continue
                    fetched.add(table)
                    shown.advance(len(table))
                    tries = 0
                    if fetched.enough(settings.most_documents):
                        break
                else:
                    fetched.done = True
            except InputError:
                raise
            except Exception as error:
                fetched.save()
                if not _may_pass(error) or tries == len(WAITS) or HF_HUB_OFFLINE:
                    raise _explained(error, settings, fetched, tries + 1) from error
                print(
                    f"{settings.where}: {_short(error)}; trying again in {WAITS[tries]:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
                time.sleep(WAITS[tries])
                tries += 1
            finally:
                fetched.save()
    return fetched


def _tables(settings: HubSettings, columns: Sequence[str], file: int, row: int) -> Iterator[pa.Table | None]:
    """Batches of rows from row ``row`` of file ``file`` on; None behind the last one of each file."""
    stream = _opened(settings, columns).with_format("arrow")
    for number in range(file, stream.num_shards):
        passed = row if number == file else 0
        for table in stream.shard(stream.num_shards, number).iter(batch_size=BATCH_ROWS):
            _need(columns, table.column_names, settings)
            if passed < len(table):
                yield table.select(columns).slice(passed)
            passed = max(passed - len(table), 0)
        yield None


def _opened(settings: HubSettings, columns: Sequence[str]) -> IterableDataset:
    import datasets

    builder = datasets.load_dataset_builder(
        settings.name,
        settings.configuration,
        revision=settings.revision,
        data_files={settings.split: list(settings.files)} if settings.files else None,
        token=os.environ.get("HF_TOKEN") or False,
        cache_dir=str(files.state_folder("hub", "cache")),
    )
    pinned = f"hf://datasets/{settings.name}@{settings.revision}"
    if not str(builder.base_path).startswith(pinned):  # a folder of that name, or a mirror that ignores the revision
        raise InputError(f"{settings.where}: expected to read {pinned}, but would read {builder.base_path}")
    stream = builder.as_streaming_dataset(split=settings.split)
    if stream.column_names is not None:
        _need(columns, stream.column_names, settings)
        if hasattr(builder.config, "columns"):  # Parquet: the other columns are not even fetched
            builder.config.columns, builder.config.batch_size = list(columns), BATCH_ROWS
            stream = builder.as_streaming_dataset(split=settings.split)
    return stream


def _need(columns: Sequence[str], known: Sequence[str], settings: HubSettings) -> None:
    missing = [name for name in columns if name not in known]
    if missing:
        raise InputError(f"{settings.where}: no column {', '.join(missing)}; it has {', '.join(known)}")


def _may_pass(error: BaseException | None) -> bool:
    """Whether an error is one of the network, or of a server that may recover."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return status in (408, 429) or status >= 500
        names = {base.__name__ for base in type(error).__mro__}
        if names & NETWORK_ERRORS or isinstance(error, (ConnectionError, TimeoutError)):
            return True
        error = error.__cause__
    return False


def _explained(error: Exception, settings: HubSettings, fetched: Fetched, tries: int) -> Exception:
    """The one message for what a person can put right; what is a defect of this project stays as it is."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    reason = _short(error)
    kept = f"The {fetched.rows:,} rows fetched so far are kept in {fetched.folder}"
    if _may_pass(error):
        from huggingface_hub.constants import ENDPOINT

        return InputError(
            f"{settings.where}: {ENDPOINT} could not be read after {tries} {'tries' if tries > 1 else 'try'} "
            f"({reason}). {kept}: run the same command again to go on. HF_ENDPOINT names a mirror; without a network "
            "copy that folder from a machine that has fetched the set, or use kind: local on its files"
        )
    if isinstance(error, (DatasetsError, HfHubHTTPError, FileNotFoundError)):
        return InputError(
            f"{settings.where}: not found or not open to you ({reason}). Check name, revision and files; for a private "
            "or gated set put a token into the environment as HF_TOKEN"
        )
    if isinstance(error, (pa.ArrowException, UnicodeError)):
        place = f"file {fetched.file + 1} of {settings.split}, behind row {fetched.row:,}"
        return InputError(f"{settings.where}: {place}: can not be read ({reason}). {kept}")
    if isinstance(error, ValueError):  # unknown configuration or split (the library lists what there is), or a cast
        place = f" file {fetched.file + 1} of {settings.split}:" if fetched.rows else ""
        return InputError(f"{settings.where}:{place} {' '.join(str(error).split())[:600]}")
    return error


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _quieten() -> None:
    """No bars, lines and long waits of the libraries' own, no request that counts downloads, and no torch."""
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    huggingface_hub.logging.set_verbosity_error()
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 2  # 20 by default
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # asks another host at each start
    datasets.config.TORCH_AVAILABLE = False  # it would be imported for nothing


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: another that wants the same rows waits and then finds them."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _chunk(index: int) -> str:
    return f"chunk-{index:05d}.parquet"
