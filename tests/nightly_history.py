"""A fortnight of results as a feed: every state the page can show, names that need escaping, a clock that jumped."""

from __future__ import annotations

import datetime
from pathlib import Path

from build_recipes.nightly.events import Event
from build_recipes.nightly.store import Store

FINDING = {
    "id": "oom-killer",
    "text": "nvcc error : 'cicc' died due to signal 9 (Kill signal)",
    "cause": "the kernel killed the compiler: memory ran out",
    "fix": "add swap, or --jobs 1",
}


def write(path: Path) -> list[Event]:
    """Record the history in a database at ``path``; returns its events in order."""
    now = [datetime.datetime(2026, 3, 1, 2, tzinfo=datetime.timezone.utc)]
    with Store(path, clock=lambda: now[0]) as store:
        for night in range(14):
            now[0] = datetime.datetime(2026, 3, 1 + night, 2, tzinfo=datetime.timezone.utc)
            for label in ("v0.12.0", "v0.33.0", "main"):
                for device in ("thor", "orin", "spark"):
                    one(store, night, label, device)
        store.record(
            "started", "v0.34.0-thor@x", "1", {"job": "v0.34.0-thor", "label": "v0.34.0", "device": "thor"}
        )
        return [event for _, event in store.events()]


def one(store: Store, night: int, label: str, device: str) -> None:
    job = f"{label}-{device}"
    run = f"{job}@{night}"
    red = (night + len(device) + len(label)) % 5 == 0 and label != "v0.12.0"
    store.record(
        "started", run, "1",
        {"job": job, "label": label, "device": device, "fingerprint": "f", "compiler_cache": "this machine's own"},
    )  # fmt: skip
    if label == "main" and device == "spark":
        store.record("paused", run, "1", {"state": "checkpointed", "seconds": 19000})
        return
    seconds = 5400 / (1 + night % 3) + len(device) * 200 + len(label) * 150
    wheel = {
        "name": f"vllm-{label}+cu130.{device}-cp38-abi3-manylinux_2_39_aarch64.whl",
        "size": 3e8 + night * 1e6,
    }
    build = {"step": "build", "gate": True, "state": "failed" if red else "passed", "seconds": seconds}
    build["command"] = ["./inv", "build", "--tag", label, "--device", device]
    if red:
        lines = [f'[{n}/153] _C/csrc/unit_{n}.cu.o  <b>& "quoted"</b> ' + "x" * 90 for n in range(25)]
        build |= {"exit": 52, "excerpt": lines, "findings": [FINDING] if night % 2 else []}
    else:
        build["facts"] = {"wheel": wheel, "units": 153, "cached": 40 * (night % 3), "up_to_date": False}
    store.record("step", run, "1.patches", {"step": "patches", "state": "passed", "seconds": 2, "gate": True})
    store.record("step", run, "1.build", build)
    verdict = {
        "verdict": "ready" if device != "orin" else "not usable",
        "reasons": ["FA2 is <absent>"] * (device == "orin"),
    }
    store.record(
        "step", run, "1.audit", {"step": "audit", "state": "passed", "facts": {"devices": {device: verdict}}}
    )
    omni = {"omni": "0.12.0", "verdict": "no-break-found", "breaks": 0}
    store.record("step", run, "1.omni", {"step": "omni", "state": "passed", "facts": omni})
    if red:
        store.record(
            "ended", run, "", {"state": "red", "seconds": seconds, "reason": "build failed with exit code 52"}
        )
    else:
        store.record("ended", run, "", {"state": "green", "seconds": seconds, "wheel": wheel})
