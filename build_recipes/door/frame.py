"""What every task shares: the way errors are shown, the words of a build, and its request."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def door(json: bool = False) -> Iterator[None]:
    """Turn an ArmoryError into its text and exit code; a user's mistake never shows a traceback.

    :param json: a failure, too, is one JSON document on stdout, where the command had not printed its own.
    """
    from build_recipes.kit import console
    from build_recipes.kit.errors import ArmoryError, of_system

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end is stopped like Ctrl-C
    before = console.printed.documents
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has gone
        raise SystemExit(141) from None
    except (ArmoryError, OSError) as caught:
        error = of_system(caught) if isinstance(caught, OSError) else caught
        if error is None:
            raise
        console.failure(str(error.args[0]), error.advice)
        if json and console.printed.documents == before:
            cause = {"cause": type(error).__name__, "code": error.exit_code}
            console.emit_json({**cause, "message": str(error.args[0]), "next": error.advice})
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        message, advice = "stopped", "type the same again: it goes on from here"
        sys.stderr.write("\nstopped; the same command goes on from here\n")
        if json and console.printed.documents == before:
            console.emit_json({"cause": "Interrupted", "code": 130, "message": message, "next": advice})
        raise SystemExit(130) from None


BUILD_HELP = {
    "tag": "vLLM release tag, such as v0.12.0; or main, a commit, a candidate (pinned by ./inv lock)",
    "device": "thor, orin, spark, gh200, gb200, gb300, h200 (default: this machine, else thor)",
    "source": "vLLM from PyPI's sdist, from git, or a folder (sdist | git | DIR)",
    "mirror": "URL=DIR: a local repository stands in for URL (repeatable; also [mirrors] in armory.toml)",
    "offline": "use no network: everything comes from the cache",
    "torch": "torch to build against: a version of the lock, 'existing', or existing:PYTHON",
    "cuda": "CUDA toolkit: a folder, or 'wheels' to assemble one from PyPI (default: CUDA_HOME, system, wheels)",
    "only": "extension modules to build, comma separated: _C,_moe_C,...",
    "without": "extension modules to leave out, comma separated",
    "smoke": "the whole way on real sources in minutes; the wheel is marked and not for use",
    "build_type": "CMake build type (Release, RelWithDebInfo, Debug, MinSizeRel)",
    "jobs": "units at once (0: one per core; memory decides below that)",
    "time_box": "stop at a checkpoint after this long, such as 9m or 5h30m; the same command goes on",
    "allow": "accept an audit finding by its id (repeatable)",
    "cache": "compiler cache: auto, ccache, sccache or off",
    "install": "install missing distribution packages (as root), saying what and why",
    "dry": "stop after the plan; nothing is written",
    "json": "print one JSON document on stdout",
}


def request_of(words: dict[str, Any]) -> Any:
    """The Request of a command line. Raises UsageError."""
    from build_recipes.build.request import Request, parse_duration

    words = {key: value for key, value in words.items() if key not in ("c", "install", "dry", "json", "unit")}
    for key in ("only", "without"):
        words[key] = tuple(filter(None, str(words.get(key) or "").split(",")))
    for key in ("mirror", "allow"):
        words[key] = tuple(words.get(key) or ())
    words["mirrors"] = words.pop("mirror")
    words["time_box"] = parse_duration(words.get("time_box") or "")
    return Request(**words)
