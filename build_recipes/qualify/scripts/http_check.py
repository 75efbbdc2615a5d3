# mypy: ignore-errors
"""Tier 4: the OpenAI server answers real HTTP requests, several at once, and stops cleanly.

usage: http_check.py FINDINGS.json '{"folder": ..., "texts": [...], "expected": [...], "tokens": 32, "log": ...,
        "arguments": [...], "start_seconds": 240}'
"""

import concurrent.futures
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from common import Findings


def main() -> None:
    found = Findings()
    options = found.options
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", options["folder"]]
    command += [
        "--served-model-name",
        "tiny",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        *options["arguments"],
    ]
    log = Path(options["log"]).open("wb")  # noqa: SIM115  closed below
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def ask(path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()

    def starts():
        began = time.monotonic()
        while time.monotonic() - began < options["start_seconds"]:
            if server.poll() is not None:
                raise RuntimeError(f"the server ended with {server.returncode}: {_tail(options['log'])}")
            try:
                if ask("/health")[0] == 200:
                    return {"ready_seconds": round(time.monotonic() - began, 1)}
            except OSError:
                time.sleep(0.5)
        raise TimeoutError(f"not ready: {_tail(options['log'])}")

    def models():
        names = [entry["id"] for entry in json.loads(ask("/v1/models")[1])["data"]]
        return {"ok": names == ["tiny"], "models": names}

    def complete(text):
        body = {
            "model": "tiny",
            "prompt": text,
            "max_tokens": options["tokens"],
            "temperature": 0,
            "ignore_eos": True,
        }
        return json.loads(ask("/v1/completions", body)[1])

    def several():
        began = time.monotonic()
        jobs = options["texts"] * 4
        with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
            answers = list(pool.map(complete, jobs))
        seconds = time.monotonic() - began
        count = sum(answer["usage"]["completion_tokens"] for answer in answers)
        texts = [answer["choices"][0]["text"] for answer in answers]
        same = sum(text == wanted for text, wanted in zip(texts, options["expected"] * 4, strict=True))
        found.set(server_tokens_per_second=round(count / seconds, 1))
        full = all(answer["usage"]["completion_tokens"] == options["tokens"] for answer in answers)
        return {"ok": full, "requests": len(jobs), "tokens": count, "seconds": round(seconds, 2),
                "equal_to_generate": same}  # fmt: skip

    def streamed():
        body = {"model": "tiny", "prompt": options["texts"][0], "max_tokens": 8, "temperature": 0, "stream": True,
                "ignore_eos": True}  # fmt: skip
        lines = [line for line in ask("/v1/completions", body)[1].split(b"\n") if line.startswith(b"data: ")]
        return {"ok": lines[-1:] == [b"data: [DONE]"] and len(lines) >= 2, "events": len(lines)}

    def refuses():
        try:
            ask("/v1/completions", {"model": "another", "prompt": "x"})
        except urllib.error.HTTPError as error:
            return {"ok": error.code == 404, "status": error.code}
        return {"ok": False, "reason": "an unknown model was answered"}

    def stops():
        began = time.monotonic()
        server.send_signal(signal.SIGINT)
        code = server.wait(60)
        with socket.socket() as probe:
            probe.settimeout(2)
            closed = probe.connect_ex(("127.0.0.1", port)) != 0
        return {
            "ok": code in (0, 130, -2) and closed,
            "exit": code,
            "seconds": round(time.monotonic() - began, 1),
        }

    try:
        if found.check("server starts", starts):
            found.check("/v1/models", models)
            found.check("requests at once", several)
            found.check("streaming", streamed)
            found.check("an unknown model is refused", refuses)
            found.check("server stops on SIGINT", stops)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
        log.close()


def _tail(path):
    return " | ".join(Path(path).read_text(errors="replace").splitlines()[-6:])[-800:]


if __name__ == "__main__":
    main()
