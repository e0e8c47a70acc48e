"""A reference behind an OpenAI-compatible completions endpoint (vLLM, SGLang, llama.cpp and others serve one).

It must return the log-probabilities of a prompt's tokens (``echo`` with ``logprobs``), which is tried before anything
is drawn. Such an interface does not say how likely an end of text was, so that ends are charged to nobody.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from freshstart.errors import InputError

AT_ONCE = 8
SECONDS = 600
PREFIXES = ("", "<|endoftext|>")  # what stands before a text, where the server puts a beginning itself or does not
PROBE = "Hello there"
Pieces = tuple[list[str], list[float]]  # tokens and their log-probabilities


class Endpoint:
    """The model behind ``http://host:port/v1#model``; the part behind ``#`` may be left out where there is only one.

    A key is taken from the environment variable OPENAI_API_KEY.
    """

    def __init__(self, address: str) -> None:
        self.url, _, named = address.rstrip("/").partition("#")
        served = [model.get("id") for model in self._call("models")["data"]] if not named else [named]
        if len(served) != 1:
            raise InputError(f"{self.url} serves {', '.join(map(str, served)) or 'no model'}: write {self.url}#<one>")
        self.model = served[0]

    @cached_property
    def prefix(self) -> str:
        """What stands before a text so that all of its tokens get a log-probability; found by trying."""
        for prefix in PREFIXES:
            try:
                tokens, log_p = self._echoed(prefix + PROBE)
            except InputError:
                continue
            if "".join(tokens[1:]) == PROBE and None not in log_p[1:]:
                return prefix
        raise self._without("of a prompt's tokens (echo with logprobs)")

    def write(self, count: int, most: int, seed: int) -> list[Pieces]:
        """Texts of at most so many tokens at temperature 1: of each its tokens and their log-probabilities."""

        def one(number: int) -> Pieces:
            drawn = {"temperature": 1, "top_p": 1, "seed": seed * 1_000_003 + number}
            return self._pieces(self._complete(self.prefix, max_tokens=most, logprobs=1, **drawn))

        return self._all(one, range(count))

    def read(self, texts: Sequence[str]) -> list[Pieces]:
        """The tokens of each text and their log-probabilities."""

        def one(text: str) -> Pieces:
            tokens, log_p = self._echoed(self.prefix + text) if text else ([], [])
            return tokens[1:], log_p[1:]

        return self._all(one, texts)

    def _echoed(self, prompt: str) -> Pieces:
        """The tokens of a prompt with their log-probabilities; the one that the server had to write is left out."""
        response = self._complete(prompt, max_tokens=1, echo=True, logprobs=1)
        (tokens, log_p), count = self._pieces(response), response["usage"]["prompt_tokens"]
        return tokens[:count], log_p[:count]

    def _complete(self, prompt: str, **more: Any) -> dict[str, Any]:
        return self._call("completions", {"model": self.model, "prompt": prompt, **more})

    def _pieces(self, response: dict[str, Any]) -> Pieces:
        found = response["choices"][0].get("logprobs") or {}
        if "token_logprobs" not in found:
            raise self._without("of what it writes (logprobs)")
        return found["tokens"], found["token_logprobs"]

    def _without(self, what: str) -> InputError:
        asked = "name a server that does, or a model's folder or hub id"
        return InputError(f"{self.url} ({self.model}) returns no log-probabilities {what}: {asked}")

    def _all(self, ask: Callable[[Any], Pieces], items: Sequence[Any]) -> list[Pieces]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                return list(pool.map(ask, items))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{self.url}/{path}", data, headers), timeout=SECONDS
            ) as response:
                answer = json.load(response)
            if body is not None:
                _ = answer["choices"][0]["text"], answer["usage"]["prompt_tokens"]
            return answer
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {error.read(300).decode(errors='replace')}"
        except (OSError, ValueError) as error:
            reason = str(error)
        except (KeyError, IndexError, TypeError) as error:
            reason = f"an answer without choices, their text and usage ({error!r})"
        raise InputError(f"{self.url}/{path}: {' '.join(reason.split())}: is it an OpenAI-compatible server?")
