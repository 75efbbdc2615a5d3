"""From a wheel to a machine that serves: companions, install, deliver, image."""

from __future__ import annotations

from typing import Any

from invoke.context import Context
from invoke.tasks import task

from build_recipes.door.frame import door


@task(
    auto_shortflags=False,
    positional=[],
    iterable=["build"],
    help={
        "tag": "vLLM release tag that has a lock",
        "wheel": "a vLLM wheel instead: its own requirements and torch",
        "device": "thor, orin, spark, ... (default: this machine, else thor)",
        "python": "minor version of the Python it will run in (default: 3.12)",
        "fresh": "resolve again, instead of reading the lock that is there",
        "build": "build this companion here, which has no wheel for the device (repeatable)",
        "to": "folder to put all the wheels into (some GB); wheels: where the index is made",
        "json": "print one JSON document on stdout",
    },
)
def companions(
    c: Context,
    tag: str = "",
    wheel: str = "",
    device: str = "",
    python: str = "",
    fresh: bool = False,
    build: Any = None,
    to: str = "",
    json: bool = False,
) -> None:
    """Say what runs beside vLLM on a device (FlashInfer, Triton, torchvision, ...), each pinned and judged."""
    with door(json):
        from build_recipes.delivery import show
        from build_recipes.kit.console import emit_json

        found = show.companions_of(tag, wheel, device, python, fresh=fresh, build=list(build or ()))
        if json:
            emit_json(found.as_dict())
        else:
            show.companions(found)
        if to:
            show.put(found, to)


_INTO = {
    "wheel": "a vLLM wheel",
    "device": "the device it is for, where its version does not say it",
    "python": "minor version of the Python to install for (default: 3.12)",
    "bare": "the wheel alone; what it needs is in the Python that is there",
    "json": "print one JSON document on stdout",
}


@task(
    auto_shortflags=False,
    positional=["wheel"],
    help={**_INTO, "env": "folder of the virtual environment (default: vllm-env here)"},
)
def install(
    c: Context,
    wheel: str,
    *,
    env: str = "vllm-env",
    device: str = "",
    python: str = "",
    bare: bool = False,
    json: bool = False,
) -> None:
    """Install a wheel on this machine, with its companions, and say how vllm serve is started."""
    with door(json):
        from pathlib import Path

        from build_recipes.delivery import install as installing
        from build_recipes.delivery.show import wheel_named
        from build_recipes.kit.console import emit_json

        place = Path(env).expanduser().resolve()
        done = installing.install(
            wheel_named(wheel, "install"), place, device=device, python=python, bare=bare
        )
        if json:
            emit_json(done.as_dict())
        else:
            installing.show(done)


@task(
    auto_shortflags=False,
    positional=["wheel"],
    iterable=["to"],
    help={
        **_INTO,
        "to": "user@board, as ssh takes it (repeatable)",
        "port": "port of its ssh server (default: ssh's own, or of ~/.ssh/config)",
        "env": "folder of the environment on the board (default: ~/vllm-env there)",
        "tiers": "what is qualified there: 0 audit, 1 import, 2 platform, 3 kernels, 4 generate; none for nothing",
    },
)
def deliver(
    c: Context,
    wheel: str,
    *,
    to: Any = None,
    port: int = 0,
    env: str = "",
    device: str = "",
    python: str = "",
    bare: bool = False,
    tiers: str = "0,1,2",
    json: bool = False,
) -> None:
    """Bring a wheel to boards by ssh: look, copy, install, qualify, and bring the result back."""
    with door(json):
        from build_recipes.delivery import deliver as delivering
        from build_recipes.delivery.show import wheel_named
        from build_recipes.kit.console import emit_json
        from build_recipes.kit.errors import UsageError

        path = wheel_named(wheel, "deliver")
        if not to:
            raise UsageError("say which board", f"./inv deliver {wheel} --to user@thor.local")
        done = delivering.deliver(
            path, list(to), device=device, python=python, bare=bare,
            tiers="" if tiers == "none" else tiers, port=port, env=env,
        )  # fmt: skip
        if json:
            emit_json(delivering.as_dicts(done))
        else:
            delivering.show(done)
        delivering.judge(done)


@task(
    auto_shortflags=False,
    positional=["wheel"],
    help={
        **_INTO,
        "base": "base image (default: NVIDIA's CUDA image for the device's system)",
        "name": "name of the image (default: vllm:VERSION-DEVICE)",
        "context_only": "write the Containerfile and its context into this folder, and build nothing",
        "tool": "buildah, podman or docker (default: the first that is there)",
        "format": "docker (with a healthcheck) or oci (which has none)",
    },
)
def image(
    c: Context,
    wheel: str,
    *,
    base: str = "",
    name: str = "",
    context_only: str = "",
    tool: str = "",
    format: str = "docker",
    device: str = "",
    python: str = "",
    bare: bool = False,
    json: bool = False,
) -> None:
    """Build a container image that serves: the wheel, its companions, the device's settings, by digest and hash."""
    with door(json):
        from pathlib import Path

        from build_recipes.delivery import image as imaging
        from build_recipes.delivery.show import wheel_named
        from build_recipes.kit.console import emit_json

        done = imaging.image(
            wheel_named(wheel, "image"), device=device, python=python, bare=bare, base=base, name=name, tool=tool,
            format=format, context=Path(context_only).expanduser().resolve() if context_only else None,
        )  # fmt: skip
        if json:
            emit_json(done.as_dict())
        else:
            imaging.show(done)
