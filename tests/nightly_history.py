"""A fortnight of results as a feed: every state the page can show, names that need escaping, a clock that jumped."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from build_recipes.nightly.events import Event
from build_recipes.nightly.store import Store

NOW = datetime.datetime(2026, 3, 14, 7, 30, tzinfo=datetime.timezone.utc)
"""When the page is drawn, some hours after the last night."""
URL = "https://github.com/owner/vllm-armory/actions/runs/{}/attempts/1"
FINDING = {
    "id": "oom-killer",
    "text": "nvcc error : 'cicc' died due to signal 9 (Kill signal)",
    "cause": "the kernel killed the compiler: memory ran out",
    "fix": "add swap, or --jobs 1",
}
VERSIONS = {"v0.12.0": "0.12.0", "v0.33.0": "0.33.0", "main": "0.34.0.dev{}+g0c0ffee"}


def write(path: Path) -> list[Event]:
    """Record the history in a database at ``path``; returns its events in order."""
    now = [datetime.datetime(2026, 3, 1, 2, tzinfo=datetime.timezone.utc)]
    with Store(path, clock=lambda: now[0]) as store:
        for night in range(14):
            now[0] = datetime.datetime(2026, 3, 1 + night, 2, tzinfo=datetime.timezone.utc)
            for label in ("v0.12.0", "v0.33.0", "main"):
                for device in ("thor", "orin", "spark"):
                    one(store, night, label, device)
            skip(
                store, night, "v0.33.0", "gh200", "does not fit arm64-old: memory: _C/<x>.cu.o takes 15.4 GiB"
            )
        small(store)
        store.record(
            "started", "v0.34.0-thor@x", "1", {"job": "v0.34.0-thor", "label": "v0.34.0", "device": "thor"}
        )
        return [event for _, event in store.events()]


def skip(store: Store, night: int, label: str, device: str, reason: str) -> None:
    """A job that a night does not run."""
    job = f"{label}-{device}"
    data = {"job": job, "label": label, "device": device, "reason": reason}
    store.record("skipped", f"{job}@2026-03-{1 + night:02}", "", data)


def small(store: Store) -> None:
    """A smoke build that is green."""
    run = "v0.12.0-thor-smoke@s"
    name = "vllm-0.12.0+cu130.thor.smoke-cp38-abi3-manylinux_2_39_aarch64.whl"
    data = {"job": "v0.12.0-thor-smoke", "label": "v0.12.0", "device": "thor"}
    store.record("started", run, "1", data)
    judged = {"devices": {"thor": {"verdict": "not usable", "reasons": ["a smoke build"]}}}
    store.record("step", run, "1.audit", {"step": "audit", "state": "failed", "facts": judged})
    store.record("ended", run, "", {"state": "green", "seconds": 100, "wheel": {"name": name, "size": 5e6}})


def one(store: Store, night: int, label: str, device: str) -> None:
    """One job of one night."""
    job = f"{label}-{device}"
    run = f"{job}@{night}"
    red = (night + len(device) + len(label)) % 5 == 0 and label != "v0.12.0"
    if label == "v0.12.0" and device == "spark" and night:
        if night < 6:  # then nobody asked for it any more
            skip(store, night, label, device, f"green already: {job}@0")
        return
    started: dict[str, Any] = {
        "job": job, "label": label, "device": device, "fingerprint": "f", "compiler_cache": "this machine's own",
        "ref": "0c0ffee" + "0" * 33 if label == "main" else label, "program": {"version": "1.0", "commit": "ab" * 20},
        "url": URL.format(4200 + night) if device != "orin" else "javascript:alert(1)",
    }  # fmt: skip
    store.record("started", run, "1", started)
    if label == "main" and device == "spark":
        store.record(
            "paused", run, "1", {"state": "checkpointed", "seconds": 19000, "reason": "stopped in build"}
        )
        return
    seconds = 5400 / (1 + night % 3) + len(device) * 200 + len(label) * 150
    version = VERSIONS[label].format(100 + night)
    local = f"{version}{'.' if '+' in version else '+'}cu130.{device}"
    wheel = {
        "name": f"vllm-{local}-cp38-abi3-manylinux_2_39_aarch64.whl",
        "size": 1.2e8 + len(label) * 2.1e7 + night * 1e6,
        "sha256": f"{night:064x}",
    }
    build = {"step": "build", "gate": True, "state": "failed" if red else "passed", "seconds": seconds}
    build["command"] = ["./inv", "build", "--tag", label, "--device", device]
    if red:
        lines = [f'[{n}/153] _C/csrc/unit_{n}.cu.o  <b>& "quoted"</b> ' + "x" * 90 for n in range(25)]
        build |= {"exit": 52, "excerpt": lines, "findings": [FINDING] if night % 2 else []}
        build["log"] = f"logs/{run}/build.log"
    else:
        build["facts"] = {"wheel": wheel, "units": 153, "cached": 40 * (night % 3), "up_to_date": False}
    store.record("step", run, "1.patches", {"step": "patches", "state": "passed", "seconds": 2, "gate": True})
    store.record("step", run, "1.build", build)
    verdict = {
        "verdict": "ready" if (label, device) != ("v0.33.0", "orin") else "not usable",
        "reasons": ["FA2 is <absent>"] * ((label, device) == ("v0.33.0", "orin")),
    }
    if not red:
        store.record(
            "step",
            run,
            "1.audit",
            {"step": "audit", "state": "passed", "facts": {"devices": {device: verdict}}},
        )
    omni: dict[str, Any] = {"omni": "0.12.0", "verdict": "no-break-found", "breaks": 0}
    if label == "main":
        omni |= {"omni": "0.32.0rc1", "verdict": "breaks", "breaks": 30}
        omni["counted"] = "21 names are missing in 30 places"
    store.record("step", run, "1.omni", {"step": "omni", "state": "passed", "facts": omni})
    if label == "v0.12.0" and device == "thor":
        tiers = {"audit": "passed", "kernels": "passed", "generate": "passed"}
        store.record(
            "step", run, "1.qualify", {"step": "qualify", "state": "passed", "facts": {"tiers": tiers}}
        )
    if red:
        failed = {"step": "build", "exit": 52, "log": build["log"], "excerpt": build["excerpt"]}
        data = {
            "state": "red",
            "seconds": seconds,
            "reason": "build failed with exit code 52",
            "failed": failed,
        }
        store.record("ended", run, "", data)
    else:
        store.record("ended", run, "", {"state": "green", "seconds": seconds, "wheel": wheel})
