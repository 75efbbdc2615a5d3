"""From a wheel to a machine that serves: companions, install, deliver, image."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from build_recipes.door.frame import door


@task(
    auto_shortflags=False,
    positional=[],
    help={
        "tag": "vLLM release tag that has a lock",
        "wheel": "a vLLM wheel instead: its own requirements and torch",
        "device": "thor, orin, spark, ... (default: this machine, else thor)",
        "python": "minor version of the Python it will run in (default: 3.12)",
        "fresh": "resolve again, instead of reading the lock that is there",
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
    json: bool = False,
) -> None:
    """Say what runs beside vLLM on a device (FlashInfer, Triton, torchvision, ...), each pinned and judged."""
    with door(json):
        from build_recipes.delivery import show
        from build_recipes.kit.console import emit_json

        found = show.companions_of(tag, wheel, device, python, fresh=fresh)
        if json:
            emit_json(found.as_dict())
        else:
            show.companions(found)
