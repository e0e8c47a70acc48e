"""Files under s3://, gs://, hf:// and http(s)://, through fsspec: listed here, read by ``local`` as they stream by.

Nothing is kept on the disk. Credentials and endpoints are those of each store's own client: AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL or ~/.aws for S3 (a public bucket: FSSPEC_S3_ANON=true), GOOGLE_APPLICATION_CREDENTIALS for Google's,
HF_TOKEN for the hub.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from freshstart.errors import InputError, failure

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp"}
SCHEME = re.compile(rf"({'|'.join(PACKAGES)})://")
BLOCK = 1 << 20
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Remote:
    """A file by its URL, with what of ``pathlib.Path`` readers of files ask for."""

    url: str

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    def __str__(self) -> str:
        """Without user, password and query, which may be secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def open(self) -> io.BufferedReader:
        return io.BufferedReader(_Reading(self), BLOCK)


class _Reading(io.RawIOBase):
    """The bytes of a remote file; InputError where they can not be had, a broken connection included."""

    def __init__(self, remote: Remote):
        self._remote = remote
        self._file = asked(remote, lambda: _filesystem(remote.url).open(remote.url, "rb"))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return asked(self._remote, lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        raw = asked(self._remote, lambda: self._file.read(len(buffer)))
        buffer[: len(raw)] = raw
        return len(raw)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def matching(pattern: str) -> tuple[list[Remote], bool]:
    """The files that a URL, one of a folder (over http with a slash at its end) or a glob pattern means, in the order
    of their names, and whether it is a folder."""
    system, named = _filesystem(pattern), Remote(pattern)
    if any(character in pattern for character in "*["):
        urls, is_folder = asked(named, lambda: system.glob(pattern)), False
    else:
        is_folder = pattern.endswith("/") or asked(named, lambda: system.info(pattern)["type"]) == "directory"
        urls = asked(named, lambda: system.find(pattern)) if is_folder else [pattern]
    files = [Remote(system.unstrip_protocol(url)) for url in sorted(urls)]
    return [file for file in files if not file.name.startswith(".")], is_folder


def _filesystem(url: str) -> Any:
    import fsspec

    scheme = urlsplit(url).scheme
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise InputError(f"{scheme}:// needs a package ({error}): pip install {PACKAGES[scheme]}") from None


def asked(remote: Remote, call: Callable[[], Answer]) -> Answer:
    """The answer of a store; its clients raise many kinds of errors, and all mean that the file can not be had."""
    try:
        return call()
    except Exception as error:
        raise InputError(
            f"{remote} can not be read ({failure(error)}): check the address, the connection and the credentials of "
            f"{urlsplit(remote.url).scheme}:// (freshstart/corpora/remote.py says which)"
        ) from error
