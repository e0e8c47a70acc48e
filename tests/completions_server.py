"""A small OpenAI-compatible completions server around a local model: what vLLM and others answer, on loopback.

Where it ``breaks_off`` its answers lack their end, as of a server that dies. Below ``/silent`` it leaves out the
log-probabilities of prompts, as some servers do.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@contextlib.contextmanager
def served(folder, breaks_off=False):
    """Serve the model in a folder; gives the address up to and with ``/v1``."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    tokenizer.encode_special_tokens = False
    lock = threading.Lock()
    end = model.config.eos_token_id

    def complete(body, is_silent):
        ids = tokenizer.encode(body["prompt"], add_special_tokens=False).ids
        begin = len(ids)
        generator = torch.Generator().manual_seed(body.get("seed", 0))
        reason = "length"
        for _ in range(body["max_tokens"]):
            logits = model(torch.tensor([ids])).logits[0, -1].float()
            ids.append(int(torch.multinomial(logits[: tokenizer.get_vocab_size()].softmax(0), 1, generator=generator)))
            if ids[-1] == end:
                ids.pop()
                reason = "stop"
                break
        log_p = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        known = [None, *(float(log_p[place, token]) for place, token in enumerate(ids[1:]))]
        shown = 0 if body.get("echo") and not is_silent else begin
        # A token that is part of a character has no text of its own: what it adds to the text so far.
        texts = [tokenizer.decode(ids[:place], skip_special_tokens=False) for place in range(len(ids) + 1)]
        tokens = [after[len(before) :] for before, after in itertools.pairwise(texts)]
        return {
            "choices": [
                {
                    "text": tokenizer.decode(ids[0 if body.get("echo") else begin :], skip_special_tokens=False),
                    "finish_reason": reason,
                    "logprobs": {"tokens": tokens[shown:], "token_logprobs": known[shown:]},
                }
            ],
            "usage": {"prompt_tokens": begin},
        }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer({"data": [{"id": folder.name}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock, torch.no_grad():
                self.answer(complete(body, self.path.startswith("/silent")))

        def answer(self, value):
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:-1] if breaks_off and "choices" in value else data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
