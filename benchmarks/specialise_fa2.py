"""FlashAttention 2 on a GPU: images that were made from PTX against those that nvcc made.

    python benchmarks/specialise_fa2.py REMADE OFFICIAL [--repeat 5] [--json FILE]

REMADE and OFFICIAL are folders with `vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so` (an installed wheel, or one that was
unpacked), or that file itself. Needs torch of the wheel's version and a GPU, nothing of this project. Both modules
register the same names, so each is measured in a process of its own, in turns. For each shape: the median time of a
forward pass by CUDA events over the last of its turns, and the ratio REMADE / OFFICIAL of the best medians. Outputs
are compared bit by bit (`equal`), and with attention in float32 by torch (`error`, the largest of both, absolute).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
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


def measure(module: Path, calls: int) -> dict[str, Any]:
    """Time every shape with one module, in this process."""
    import torch

    torch.ops.load_library(str(module))
    found: dict[str, Any] = {}
    for name, shape in SHAPES.items():
        forward, inputs = call(torch, shape)
        try:
            out = forward()
            torch.cuda.synchronize()
        except RuntimeError as error:  # one shape is not the others' fault
            found[name] = {"failed": str(error).splitlines()[0]}
            continue
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
        found[name] = {"us": statistics.median(times), "error": off, "sha256": digest}
        del out, forward, inputs
        torch.cuda.empty_cache()
    return {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "shapes": found}


def main() -> None:
    """Measure in turns and print."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("remade", type=module_of)
    parser.add_argument("official", type=module_of)
    parser.add_argument("--repeat", type=int, default=3, help="turns")
    parser.add_argument("--calls", type=int, default=20, help="timings of ten passes each, a turn and shape")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {"remade": [], "official": []}
    for _ in range(asked.repeat):
        for name, turns in rows.items():
            words = [sys.executable, __file__, "--one", str(getattr(asked, name)), str(asked.calls)]
            with tempfile.TemporaryDirectory() as folder:
                done = subprocess.run(words, stdout=subprocess.PIPE, check=True, cwd=folder)
            turns.append(json.loads(done.stdout.splitlines()[-1]))
    first = rows["remade"][0]
    print(f"{first['gpu']}, torch {first['torch']}; {asked.repeat} turns of {asked.calls} x 10 passes")
    print("| shape | remade, us | official, us | ratio | equal | error |\n|---|---|---|---|---|---|")
    ratios = []
    for shape in SHAPES:
        both = {name: [turn["shapes"][shape] for turn in found] for name, found in rows.items()}
        if why := {one["failed"] for turns in both.values() for one in turns if "failed" in one}:
            print(f"| {shape} | failed: {'; '.join(sorted(why))} |||||")
            continue
        best = {name: min(one["us"] for one in turns) for name, turns in both.items()}
        equal = {one["sha256"] for turns in both.values() for one in turns}
        error = max(one["error"] for turns in both.values() for one in turns)
        ratios.append(best["remade"] / best["official"])
        print(
            f"| {shape} | {best['remade']:.1f} | {best['official']:.1f} | {ratios[-1]:.3f} |"
            f" {'yes' if len(equal) == 1 else 'no'} | {error:.4f} |"
        )
    if ratios:
        mean = statistics.geometric_mean(ratios)
        print(f"geometric mean of the ratios {mean:.3f}, largest {max(ratios):.3f}")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
