"""What every command shares: the way errors are shown."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def door(json: bool = False) -> Iterator[None]:
    """Turn an ArmoryError into its text and exit code; a user's mistake never shows a traceback.

    :param json: a failure, too, is one JSON document on stdout, where the command had not printed its own.
    """
    from build_recipes.kit import console, heartbeat
    from build_recipes.kit.errors import ArmoryError
    from build_recipes.kit.system_errors import of_system

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end is stopped like Ctrl-C
        heartbeat.answer_signal()
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
        message, advice = "stopped", "run the same command again: it goes on from here"
        sys.stderr.write("\nstopped; the same command goes on from here\n")
        if json and console.printed.documents == before:
            console.emit_json({"cause": "Interrupted", "code": 130, "message": message, "next": advice})
        raise SystemExit(130) from None
