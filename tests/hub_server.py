"""A dataset hub on the loopback: speaks what ``datasets`` and ``huggingface_hub`` ask for when they fetch a set.

Held to the calls seen in datasets 5.2 with huggingface_hub 2.4, and no others (an unknown one answers 501 and is in
the log): ``resolve`` with HEAD and GET, ``api/datasets/<name>/revision`` and ``tree``, with the headers
X-Repo-Commit, ETag and X-Error-Code that the client reads. One repository has one commit.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

RESOLVE = re.compile(r"/datasets/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
API = re.compile(r"/api/datasets/(?P<name>[^/]+/[^/]+?)(/(?P<call>revision|tree)/(?P<revision>[^/]+)(?P<path>/.*)?)?")
DATE = "2023-02-20T00:00:00.000Z"


@dataclass
class Request:
    """One line of the log: whether the content of a file was sent, and the token that the client showed."""

    path: str
    is_content: bool
    token: str | None


@dataclass
class Hub:
    """``repositories``: name to (commit, path to content). ``pause`` (seconds) comes in the middle of each answer that
    carries data; the next ``cut`` of those answers end there, the next ``unavailable`` of them are 503."""

    repositories: dict[str, tuple[str, dict[str, bytes]]] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)
    pause: float = 0.0
    cut: int = 0
    unavailable: int = 0
    url: str = ""

    def add(self, name: str, contents: dict[str, bytes]) -> str:
        """Publish a repository; gives its commit."""
        digest = hashlib.sha1()
        for path in sorted(contents):
            digest.update(path.encode() + b"\0" + contents[path])
        self.repositories[name] = (digest.hexdigest(), contents)
        return digest.hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if match := RESOLVE.fullmatch(path):
            contents = self._contents(match)
            if contents is not None:
                self._file(match["path"], contents)
        elif match := API.fullmatch(path):
            contents = self._contents(match)
            if contents is not None:
                self._api(match, contents)
        else:
            self._send(501, b"not a call that this server speaks")

    def _contents(self, match: re.Match[str]) -> dict[str, bytes] | None:
        if match["name"] not in self.hub.repositories:
            self._send(404, b"Repository not found", {"X-Error-Code": "RepoNotFound"})
            return None
        commit, contents = self.hub.repositories[match["name"]]
        if match["revision"] not in (None, "main", commit):
            self._send(404, b"Invalid rev id", {"X-Error-Code": "RevisionNotFound"})
            return None
        self.commit = commit
        return contents

    def _file(self, path: str, contents: dict[str, bytes]) -> None:
        if path not in contents:
            self._send(404, b"Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit})
            return
        raw = contents[path]
        headers = {
            "X-Repo-Commit": self.commit,
            "ETag": f'"{hashlib.sha1(raw).hexdigest()}"',
            "Content-Type": "application/octet-stream",
        }
        self._send(200, raw, headers, is_file=True)

    def _api(self, match: re.Match[str], contents: dict[str, bytes]) -> None:
        folders = {path[:i] for path in contents for i, c in enumerate(path) if c == "/"}
        if match["call"] in (None, "revision"):
            siblings = [{"rfilename": path} for path in sorted(contents)]
            answer: object = {"id": match["name"], "sha": self.commit, "siblings": siblings}
        else:
            below = (match["path"] or "").strip("/")
            if below and below not in folders:
                self._send(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
                return
            deep = "recursive=true" in self.path.lower()
            inside = [p for p in sorted(folders | set(contents)) if not below or p.startswith(f"{below}/")]
            shown = [p for p in inside if deep or "/" not in p[len(below) :].strip("/")]
            answer = [self._entry(path, contents) for path in shown]
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _entry(self, path: str, contents: dict[str, bytes]) -> dict[str, object]:
        commit = {"id": self.commit, "title": "publish", "date": DATE}
        if path not in contents:
            return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0, "lastCommit": commit}
        oid = hashlib.sha1(contents[path]).hexdigest()
        return {"type": "file", "path": path, "oid": oid, "size": len(contents[path]), "lastCommit": commit}

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, is_file: bool = False) -> None:
        carries = is_file and self.command == "GET"
        if carries and self.hub.unavailable:
            self.hub.unavailable -= 1
            status, body, headers, carries = 503, b"try again", {}, False
        self.hub.log.append(Request(self.path, carries, self.headers.get("Authorization")))
        with suppress(ConnectionError):  # a client that was killed
            self._write(status, body, headers or {}, carries)

    def _write(self, status: int, body: bytes, headers: dict[str, str], carries: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        middle = len(body) // 2 if carries else 0
        self.wfile.write(body[:middle])
        if carries and self.hub.cut:
            self.hub.cut -= 1
            self.close_connection = True
            return
        if carries:
            time.sleep(self.hub.pause)
        self.wfile.write(body[middle:])


@contextmanager
def served() -> Iterator[Hub]:
    """A hub behind a free port of the loopback; ``hub.url`` is what HF_ENDPOINT must be."""
    hub = Hub()

    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
