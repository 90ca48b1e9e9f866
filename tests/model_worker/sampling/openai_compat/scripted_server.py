"""An inference server in a thread that speaks vLLM's, SGLang's or OpenAI's wire format, and fails as a test tells it.

The formats follow vLLM 0.33's ``entrypoints/openai/completion`` and ``entrypoints/serve/rlhf``, and SGLang 0.5.23's
``/generate``. Its "model" is a hash of what it is asked: faithful, unless it is told to ignore something.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from transformers import PreTrainedTokenizerBase

TOKENS = 9
FIRST_WORD = 300
ENGINE_ERROR = {"error": {"message": "the engine died", "type": "InternalServerError", "code": 500}}


@dataclass
class ScriptedServer:
    """What the server is told, and what it was asked."""

    tokenizer: PreTrainedTokenizerBase
    dialect: str
    ignores: set[str] = field(default_factory=set)
    """Of ``temperature``, ``top_p`` and ``seed``."""
    faults: list[str] = field(default_factory=list)
    """What goes wrong with the next draws: ``busy``, ``refuse``, ``cut``, ``stall``, ``garbage``, ``other_token``,
    ``other_text``, ``other_prompt``, ``two_versions``, ``abort``, ``error``."""
    pace_s: float = 0.0
    has_dev_mode: bool = True
    fails_to_load: set[str] = field(default_factory=set)
    tempers_logprobs: bool = False
    repeats: bool = True
    """Whether SGLang's events repeat those before them, as they do by default."""
    takes_token_ids: bool = False
    same_texts: int = 0
    """How many of the next draws give the same text whatever the seed."""
    version: str = "default"
    draws: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    dropped: int = 0
    """How many connections the client closed before the end."""
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 30.0) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"nothing came in {timeout_s} s; calls: {self.calls[-8:]}"
            time.sleep(0.01)

    def ids(self, temperature: float, top_p: float, seed: int) -> list[int]:
        """The response to the parameters: like a model's, greedy where it must be."""
        is_greedy = temperature == 0 or (top_p < 0.01 and "top_p" not in self.ignores)
        if "temperature" in self.ignores:
            is_greedy = True
        if "seed" in self.ignores:
            seed = len(self.draws)
        if self.same_texts > 0:
            self.same_texts -= 1
            seed = 0
        key = "greedy" if is_greedy else f"hot {seed}"
        words = [FIRST_WORD + byte % 100 for byte in hashlib.sha256(key.encode()).digest()[: TOKENS - 1]]
        return [*words, int(self.tokenizer.eos_token_id)]


class _Handler(BaseHTTPRequestHandler):
    server: "_Http"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Tests need no access log."""

    def do_GET(self) -> None:
        scripted = self.server.scripted
        if self.path == "/version":
            self._json({"version": "0.33.0"})
        elif self.path == "/get_server_info":
            self._json({"version": "0.5.23", "model_path": "/ckpts/chat"})
        elif self.path == "/v1/models":
            self._json({"data": [{"id": "chat", "owned_by": "scripted", "max_model_len": 256}]})
        elif self.path == "/weight_info":
            self._json({"weight_version": scripted.version})
        else:
            self._json({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        scripted = self.server.scripted
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        if self.path in {"/v1/completions", "/generate"}:
            self._draw(scripted, body)
            return
        scripted.calls.append((self.path, body))
        match self.path:
            case "/pause?mode=wait" | "/resume" | "/reset_prefix_cache" if scripted.has_dev_mode:
                self._json({"success": True})
            case "/collective_rpc" if scripted.has_dev_mode:
                folder = body["kwargs"]["weights_path"]
                is_bad = any(folder.endswith(name) for name in scripted.fails_to_load)
                self._json({"error": "cannot load"} if is_bad else {"results": [None]}, 500 if is_bad else 200)
            case "/update_weight_version" if scripted.has_dev_mode:
                scripted.version = body["new_version"]
                self._json({"success": True})
            case "/update_weights_from_disk":
                is_bad = any(body["model_path"].endswith(name) for name in scripted.fails_to_load)
                if not is_bad:
                    scripted.version = body["weight_version"]
                self._json({"success": not is_bad, "message": "as told"}, 400 if is_bad else 200)
            case _:
                self._json({"detail": "Not Found"}, 404)

    def _draw(self, scripted: ScriptedServer, body: dict[str, Any]) -> None:
        if not body.get("stream"):
            # The client asks whether prompts may be token ids.
            if not scripted.takes_token_ids:
                self._json({"detail": "prompt must be a string."}, 400)
            else:
                self._json({"choices": [], "usage": {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1}})
            return
        with scripted.lock:
            fault = scripted.faults.pop(0) if scripted.faults else None
            params = body.get("sampling_params", body)
            seed = params.get("sampling_seed", params.get("seed", 0))
            ids = scripted.ids(params["temperature"], params["top_p"], seed)
            scripted.draws.append(body)
            scripted.headers.append(dict(self.headers))
        if fault == "busy":
            self._json({"error": {"message": "paused"}}, 503, {"Retry-After": "1"})
            return
        if fault == "refuse":
            self._json({"error": {"message": "the prompt is too long"}}, 400)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            self._stream(scripted, body, ids, fault)
        except OSError:
            scripted.dropped += 1
        self.close_connection = True

    def _stream(self, scripted: ScriptedServer, body: dict[str, Any], ids: list[int], fault: str | None) -> None:
        if fault == "other_token":
            ids[2] = 10_000_000
        events = _sglang_events if self.path == "/generate" else _completion_events
        for number, event in enumerate(events(scripted, body, ids, fault)):
            time.sleep(scripted.pace_s)
            if fault == "stall" and number == 3:
                time.sleep(1.5)
            if fault == "cut" and number == 3:
                self.wfile.write(b'data: {"choi')
                return
            if fault == "garbage" and number == 3:
                self.wfile.write(b"<html>bad gateway</html>\n")
                return
            sent = ENGINE_ERROR if fault == "error" and number == 3 else event
            self.wfile.write(f"data: {json.dumps(sent, ensure_ascii=False)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")

    def _json(self, body: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _completion_events(
    scripted: ScriptedServer, body: dict[str, Any], ids: list[int], fault: str | None
) -> Iterator[dict[str, Any]]:
    is_vllm = scripted.dialect == "vllm"
    prompt = body["prompt"]
    prompt_ids = prompt if isinstance(prompt, list) else scripted.tokenizer(prompt)["input_ids"]
    ids = ids[: body["max_tokens"]]
    for index, token_id in enumerate(ids):
        known = token_id < len(scripted.tokenizer)
        text = scripted.tokenizer.decode([token_id], skip_special_tokens=True) if known else "?"
        choice: dict[str, Any] = {"index": 0, "text": text, "finish_reason": None}
        if fault == "other_text" and index == 2:
            choice["text"] = " zzz"
        if index == len(ids) - 1:
            choice["finish_reason"] = "abort" if fault == "abort" else "stop" if len(ids) == TOKENS else "length"
        if is_vllm:
            choice |= {"token_ids": [token_id], "logprobs": {"token_logprobs": [_logprob(scripted, body)]}}
            if index == 0:
                choice["prompt_token_ids"] = prompt_ids[1:] if fault == "other_prompt" else prompt_ids
            if index == len(ids) - 1:
                spans = [{"version": scripted.version, "start": 0, "end": len(ids)}]
                if fault == "two_versions":
                    spans = [spans[0] | {"end": 4}, {"version": "v2", "start": 4, "end": len(ids)}]
                choice["weight_versions"] = spans
        yield {"id": "cmpl-1", "object": "text_completion", "model": "chat", "choices": [choice]}
    read = len(prompt_ids) + (1 if fault == "other_prompt" else 0)
    yield {"choices": [], "usage": {"prompt_tokens": read, "completion_tokens": len(ids), "total_tokens": 0}}


def _sglang_events(
    scripted: ScriptedServer, body: dict[str, Any], ids: list[int], fault: str | None
) -> Iterator[dict[str, Any]]:
    ids = ids[: body["sampling_params"]["max_new_tokens"]]
    logprob = _logprob(scripted, body["sampling_params"])
    for count in range(1, len(ids) + 1):
        start = 0 if scripted.repeats else count - 1
        text = scripted.tokenizer.decode(ids[:count], skip_special_tokens=True)
        before = scripted.tokenizer.decode(ids[:start], skip_special_tokens=True)
        end = None
        if count == len(ids):
            end = {"type": "stop", "matched": ids[-1]} if len(ids) == TOKENS else {"type": "length", "length": count}
            end = {"type": "abort", "message": "told to"} if fault == "abort" else end
        yield {
            "text": text[len(before) :],
            "output_ids": ids[start:count],
            "meta_info": {
                "id": body["rid"],
                "finish_reason": end,
                "prompt_tokens": len(body["input_ids"]),
                "completion_tokens": count,
                "weight_version": "v2" if fault == "two_versions" and count > 4 else scripted.version,
                "output_token_logprobs": [[logprob, token_id, None] for token_id in ids[start:count]],
            },
        }


def _logprob(scripted: ScriptedServer, params: dict[str, Any]) -> float:
    return -0.5 / (params["temperature"] or 1.0) if scripted.tempers_logprobs else -0.5


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    scripted: ScriptedServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error of the test."""


@contextmanager
def serving(scripted: ScriptedServer) -> Iterator[ScriptedServer]:
    """Run the server on a free port while the context lasts."""
    http = _Http(("127.0.0.1", 0), _Handler)
    http.scripted = scripted
    scripted.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield scripted
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
