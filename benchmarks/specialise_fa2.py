"""FlashAttention 2 on a GPU: images that were made from PTX against those that nvcc made.

    python benchmarks/specialise_fa2.py REMADE OFFICIAL [--json FILE] [--most-seconds 300]

REMADE and OFFICIAL are folders with `vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so` (an installed wheel, or one that was
unpacked), or that file itself. Needs torch of the wheel's version and a GPU, nothing of this project. Both modules
register the same names, so each has a process of its own; both live as long as the run, and take turns on each
shape. A line a shape, as soon as it is measured: the best median time of a forward pass by CUDA events over the turns,
and the ratio REMADE / OFFICIAL. Outputs are compared bit by bit (`equal`), and with attention in float32 by torch
(`error`, the largest of both, absolute).

What is done on the GPU takes seconds; importing torch twice, and CUDA's start, take the rest, and both tell how long
they took. With --json the shapes that are done are kept, and a second run goes on behind them. A process that gives no
answer for --patience seconds prints where it stands, and the run ends.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import json
import os
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PLACE = "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so"
PAGE = 16
"""Tokens of a page of the KV cache, as vLLM's default."""
SHAPES: dict[str, dict[str, Any]] = {
    "prefill, head 128, causal": {"batch": 4, "queries": 2048, "keys": 2048, "head": 128},
    "prefill, head 128, not causal": {"batch": 4, "queries": 2048, "keys": 2048, "head": 128, "causal": False},
    "prefill, head 128, fp16": {"batch": 4, "queries": 2048, "keys": 2048, "head": 128, "dtype": "float16"},
    "prefill, head 64, causal": {"batch": 4, "queries": 2048, "keys": 2048, "head": 64},
    "prefill, head 256, causal": {"batch": 2, "queries": 2048, "keys": 2048, "head": 256, "heads": (16, 4)},
    "prefill, head 128, window 512": {"batch": 4, "queries": 2048, "keys": 2048, "head": 128, "window": (511, 0)},
    "prefill, head 128, ALiBi": {"batch": 4, "queries": 2048, "keys": 2048, "head": 128, "alibi": True},
    "prefill, head 128, softcap": {"batch": 4, "queries": 2048, "keys": 2048, "head": 128, "softcap": 30.0},
    "chunk of 256 after 4096, paged": {"batch": 4, "queries": 256, "keys": 4352, "head": 128, "paged": True},
    "decode, 32 x 1024, paged": {"batch": 32, "queries": 1, "keys": 1024, "head": 128, "paged": True},
    "decode, 4 x 16384, paged": {"batch": 4, "queries": 1, "keys": 16384, "head": 128, "paged": True},
    "decode, 32 x 1024, head 64, paged": {"batch": 32, "queries": 1, "keys": 1024, "head": 64, "paged": True},
}  # fmt: skip


def module_of(text: str) -> Path:
    """The module of a prefix.

    :raises SystemExit: it is not there.
    """
    path = Path(text)
    path = path / PLACE if path.is_dir() else path
    if not path.is_file():
        raise SystemExit(f"there is no {path}")
    return path.resolve()


def call(torch: Any, shape: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """One forward pass as vLLM's flash_attn_interface.py asks for it, and its inputs."""
    batch, queries, keys, head = (shape[word] for word in ("batch", "queries", "keys", "head"))
    (many, few), causal = shape.get("heads", (32, 8)), shape.get("causal", True)
    dtype = getattr(torch, shape.get("dtype", "bfloat16"))
    device: dict[str, Any] = {"device": "cuda", "dtype": dtype}
    torch.manual_seed(20261126)
    query = torch.randn(batch * queries, many, head, **device)
    key, value = (torch.randn(batch * keys, few, head, **device) for _ in "kv")
    int32 = {"device": "cuda", "dtype": torch.int32}
    starts = torch.arange(0, (batch + 1) * queries, queries, **int32)
    key_starts = torch.arange(0, (batch + 1) * keys, keys, **int32)
    table = used = None
    if shape.get("paged"):
        pages = keys // PAGE
        order = torch.randperm(batch * pages, device="cuda")
        paged = [torch.empty(batch * pages, PAGE, few, head, **device) for _ in "kv"]
        for one, plain in zip(paged, (key, value), strict=True):
            one[order] = plain.view(batch * pages, PAGE, few, head)
        table, used = order.view(batch, pages).to(torch.int32), torch.full((batch,), keys, **int32)
        key_starts = torch.zeros_like(starts)
    slopes = None
    if shape.get("alibi"):
        slopes = torch.tensor([2.0 ** (-8 * (n + 1) / many) for n in range(many)], device="cuda")
    left, right = shape.get("window", (-1, -1))
    given = (paged[0], paged[1]) if table is not None else (key, value)
    words = (
        query, *given, None, starts, key_starts, used, None, table, slopes, queries, keys, 0.0, head**-0.5,
        False, causal, left, right, shape.get("softcap", 0.0), False, 0, None,
    )  # fmt: skip

    def forward() -> Any:
        return torch.ops._vllm_fa2_C.varlen_fwd(*words)[0]

    return forward, (query, key, value, slopes)


def reference(torch: Any, shape: dict[str, Any], inputs: tuple[Any, ...]) -> Any:
    """Attention of the first sequence in float32."""
    query, key, value, slopes = inputs
    queries, keys = shape["queries"], shape["keys"]
    q = query[:queries].float().transpose(0, 1)
    group = q.shape[0] // key.shape[1]
    k, v = (one[:keys].float().transpose(0, 1).repeat_interleave(group, 0) for one in (key, value))
    score = q @ k.transpose(1, 2) * shape["head"] ** -0.5
    if cap := shape.get("softcap"):
        score = cap * torch.tanh(score / cap)
    row = torch.arange(queries, device="cuda")[:, None] + keys - queries
    column = torch.arange(keys, device="cuda")[None]
    if slopes is not None:
        score = score - slopes[:, None, None] * (row - column).abs()
    left, right = shape.get("window", (-1, -1))
    hidden = column > row if shape.get("causal", True) else torch.zeros_like(column > row)
    hidden |= (column > row + right) if right >= 0 else hidden
    hidden |= (column < row - left) if left >= 0 else hidden
    return (score.masked_fill(hidden, float("-inf")).softmax(-1) @ v).transpose(0, 1)


def measure(torch: Any, name: str, calls: int) -> dict[str, Any]:
    """Time one shape in this process."""
    shape = SHAPES[name]
    forward, inputs = call(torch, shape)
    try:
        out = forward()
        torch.cuda.synchronize()
    except RuntimeError as error:  # one shape is not the others' fault
        return {"failed": str(error).splitlines()[0]}
    off = (out[: shape["queries"]].float() - reference(torch, shape, inputs)).abs().max().item()
    for _ in range(5):
        forward()
    times = []
    for _ in range(calls):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        start.record()
        for _ in range(10):
            forward()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 100)
    digest = hashlib.sha256(out.view(torch.int16).cpu().numpy().tobytes()).hexdigest()
    del out, forward, inputs
    torch.cuda.empty_cache()
    return {"us": statistics.median(times), "error": off, "sha256": digest}


def serve(module: Path, calls: int, patience: float) -> None:
    """The process of one module: a shape's name a line in, what was found a line out."""
    faulthandler.dump_traceback_later(patience, exit=True)
    began = time.monotonic()
    import torch

    imported = time.monotonic()
    torch.ops.load_library(str(module))
    torch.zeros(1, device="cuda")
    ready = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    ready |= {"import_s": round(imported - began, 1), "start_s": round(time.monotonic() - imported, 1)}
    print(json.dumps(ready), flush=True)
    faulthandler.cancel_dump_traceback_later()
    for line in sys.stdin:
        faulthandler.dump_traceback_later(patience, exit=True)
        print(json.dumps(measure(torch, line.strip(), calls)), flush=True)
        faulthandler.cancel_dump_traceback_later()


class Process:
    """A process of `serve`."""

    def __init__(self, name: str, module: Path, calls: int, patience: float, folder: str) -> None:
        self.name, self.patience = name, patience
        words = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--serve",
            str(module),
            str(calls),
            str(patience),
        ]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, bufsize=1, cwd=folder)

    def answer(self) -> dict[str, Any]:
        """Its next line.

        :raises SystemExit: it ended, or said nothing in time.
        """
        assert self.child.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            line = self.child.stdout.readline() if selector.select(self.patience + 30) else ""
        if not line:
            self.child.kill()
            raise SystemExit(f"{self.name} gave no answer; it ended with {self.child.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, shape: str) -> dict[str, Any]:
        """What it finds for a shape."""
        assert self.child.stdin
        self.child.stdin.write(shape + "\n")
        self.child.stdin.flush()
        return self.answer()


def row(shape: str, turns: dict[str, list[dict[str, Any]]]) -> tuple[str, float | None]:
    """A line of the table, and the ratio; None where a shape failed."""
    flat = [one for found in turns.values() for one in found]
    if why := {one["failed"] for one in flat if "failed" in one}:
        return f"| {shape} | failed: {'; '.join(sorted(why))} |||||", None
    best = {name: min(one["us"] for one in found) for name, found in turns.items()}
    equal = "yes" if len({one["sha256"] for one in flat}) == 1 else "no"
    ratio, error = best["remade"] / best["official"], max(one["error"] for one in flat)
    text = (
        f"| {shape} | {best['remade']:.1f} | {best['official']:.1f} | {ratio:.3f} | {equal} | {error:.4f} |"
    )
    return text, ratio


def kept(path: Path | None, of: list[str]) -> dict[str, Any]:
    """Shapes that an earlier run with the same modules, GPU and torch has measured.

    :raises SystemExit: the file is of others.
    """
    found: dict[str, Any] = {"of": of, "shapes": {}}
    if path and path.exists():
        found = json.loads(path.read_text())
    if found["of"] != of:
        raise SystemExit(f"{path} is of other modules, or of another GPU: name another file")
    shapes: dict[str, Any] = found["shapes"]
    return shapes


def main() -> None:
    """Measure in turns and print."""
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("remade", type=module_of)
    parser.add_argument("official", type=module_of)
    parser.add_argument("--repeat", type=int, default=3, help="turns a shape")
    parser.add_argument("--calls", type=int, default=20, help="timings of ten passes each, a turn and shape")
    parser.add_argument("--most-seconds", type=float, default=600, help="begin no shape after this long")
    parser.add_argument("--patience", type=float, default=120, help="seconds for one answer")
    parser.add_argument("--json", type=Path, help="keeps what is done; a second run goes on behind it")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        both = [
            Process(name, getattr(asked, name), asked.calls, asked.patience, folder)
            for name in ("remade", "official")
        ]
        for one in both:
            stack.callback(one.child.kill)
        of = [hashlib.sha256(getattr(asked, one.name).read_bytes()).hexdigest() for one in both]
        for one in both:
            told = one.answer()
            of += [told["gpu"], told["torch"]]
            print(f"{one.name}: {json.dumps(told)}", flush=True)
        done = kept(asked.json, of)
        print(f"{asked.repeat} turns of {asked.calls} x 10 passes, load {os.getloadavg()[0]:.0f}")
        print(
            "| shape | remade, us | official, us | ratio | equal | error |\n|---|---|---|---|---|---|",
            flush=True,
        )
        ratios, left = [], []
        for shape in SHAPES:
            if shape not in done:
                if time.monotonic() - began > asked.most_seconds:
                    left.append(shape)
                    continue
                turns: dict[str, list[dict[str, Any]]] = {one.name: [] for one in both}
                for _ in range(asked.repeat):
                    for one in both:
                        turns[one.name].append(one.ask(shape))
                done[shape] = turns
                if asked.json:
                    asked.json.write_text(json.dumps({"of": of, "shapes": done}, indent=1))
            text, ratio = row(shape, done[shape])
            ratios += [ratio] if ratio else []
            print(text, flush=True)
    if ratios:
        mean = statistics.geometric_mean(ratios)
        print(
            f"geometric mean of the ratios {mean:.3f}, largest {max(ratios):.3f}, {time.monotonic() - began:.0f} s"
        )
    if left:
        print(f"not measured in {asked.most_seconds:.0f} s: {'; '.join(left)}")


if __name__ == "__main__":
    main()
