"""Tier 4: tokens. A tiny model through LLM.generate, judged by transformers, then through the OpenAI server."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from build_recipes.facts.device import Device
from build_recipes.kit.console import say
from build_recipes.kit.once import remove_tree
from build_recipes.qualify.report import FAILED, PASSED, Tier, judge
from build_recipes.qualify.trial import Trial, failed, run_script

TOKENS = 64
KV_BYTES = 256 << 20
"""KV cache asked for, bytes: 16 sequences of 1024 tokens of the tiny model need 32 MiB."""
UNIFIED, DISCRETE = 0.25, 0.30


def memory(device: Device) -> dict[str, Any]:
    """Memory settings of the trial, and why."""
    if device.memory_kind == "unified":
        return {
            "utilization": UNIFIED, "kv_bytes": KV_BYTES,
            "why": "unified memory: the GPU's share is the host's too, and vLLM's default of 0.90 has ended whole "
            "boards; a tiny model needs far less than a quarter",
        }  # fmt: skip
    return {
        "utilization": DISCRETE, "kv_bytes": KV_BYTES,
        "why": "the GPU may have other users; a tiny model needs far less than this",
    }  # fmt: skip


def generate(trial: Trial, limit: float) -> Tier:
    """Tier 4.

    Eager and compiled runs are both judged; the tier passes where eager, reference and server do. A compiled run
    that fails is named in the reason: it is torch.compile's and CUDA graphs' matter, not the kernels'.
    """
    started = time.monotonic()
    settings = memory(trial.device)
    share, cache = settings["utilization"], settings["kv_bytes"] >> 20
    say(f"  memory: {share:.2f} of the GPU's, {cache} MiB of KV cache; {settings['why']}")
    model = trial.folder / "model"
    remove_tree(model)
    made = run_script(trial, "make_model", {"folder": str(model)}, 120)
    if not all(check["ok"] for check in made["checks"]) or "prompts" not in made:
        return failed(4, "generate", f"the model could not be made: {judge(made['checks'])[1]}", started)
    options = {"folder": str(model), "prompts": made["prompts"], "tokens": TOKENS, **settings}
    private = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CACHE_ROOT": str(trial.folder / "vllm-cache")}
    facts: dict[str, Any] = {"memory": settings, "model": {"parameters": made["parameters"]}}
    runs: dict[str, list[list[int]]] = {}
    for name, eager in (("eager", True), ("compiled", False)):
        seen = run_script(
            trial,
            "generate_vllm",
            {**options, "eager": eager},
            limit,
            variables=private,
            label=f"generate-{name}",
        )
        seen["attention"] = attention_backend(trial.folder / f"generate-{name}.log")
        facts[name] = seen
        if "tokens" in seen:
            runs[name] = seen["tokens"]
    checks = [{**check, "name": f"{check['name']} (eager)"} for check in facts["eager"]["checks"]]
    if runs:
        reference = run_script(
            trial,
            "generate_reference",
            {"folder": str(model), "prompts": made["prompts"], "runs": runs},
            limit,
        )
        facts["reference"] = reference
        checks += reference["checks"]
    server = run_script(
        trial, "http_check",
        {
            "folder": str(model), "texts": made["texts"], "tokens": TOKENS, "start_seconds": limit,
            "expected": facts["eager"].get("texts") or [""] * len(made["texts"]),
            "log": str(trial.folder / "server.log"),
            "arguments": [
                *("--dtype", "float16", "--max-model-len", "1024", "--max-num-seqs", "32", "--enforce-eager"),
                *("--gpu-memory-utilization", str(settings["utilization"])),
                *("--kv-cache-memory-bytes", str(KV_BYTES)),
            ],
        },
        limit + 180, variables={"VLLM_CACHE_ROOT": private["VLLM_CACHE_ROOT"]},
    )  # fmt: skip
    facts["server"] = server
    checks += server["checks"]
    facts["checks"] = checks
    result, reason = judge(checks)
    if result == PASSED:
        reason = summary(facts)
    bad = [check for check in facts["compiled"]["checks"] if not check["ok"]]
    if bad:
        reason += f"; with torch.compile and CUDA graphs: FAILED ({str(bad[0].get('reason', ''))[:200]})"
    if "eager" not in runs:
        result = FAILED
    return Tier(4, "generate", result, reason[:1000], round(time.monotonic() - started, 2), facts)


def summary(facts: dict[str, Any]) -> str:
    """One line on a tier that passed."""
    parts = []
    for name, row in facts["reference"]["fair"].items():
        if name not in facts:
            continue  # the yardstick
        run = facts[name]
        exact = facts["reference"]["exact"][name]
        parts.append(
            f"{name}: {row['argmax']} of {row['tokens']} tokens are the reference's argmax, {row['near']} near ties, "
            f"{exact['sequences_equal']} of {exact['sequences']} sequences equal transformers' own; "
            f"{run['tokens_per_second']} tokens/s, peak {run['peak_reserved_bytes'] / 2**30:.2f} GiB"
        )
    server = next(check for check in facts["server"]["checks"] if check["name"] == "requests at once")
    return "; ".join([*parts, f"server: {server['requests']} requests at once"])


def attention_backend(log: Path) -> str:
    """The attention backend that vLLM said it uses, from its log."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"Using (?:AttentionBackendEnum\.)?(\w+) (?:attention )?backend", text)
    version = re.search(r"FlashAttention version (\d)", text)
    return " ".join(filter(None, [found and found.group(1), version and f"version {version.group(1)}"]))
