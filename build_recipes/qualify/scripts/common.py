# mypy: ignore-errors
"""What the scripts share. They run inside the wheel's environment and import nothing of build_recipes."""

import json
import sys
import time
import traceback
from pathlib import Path


class Findings:
    """Findings of one script, written to the file it was given after every step: a crash loses nothing."""

    def __init__(self) -> None:
        self.path = Path(sys.argv[1])
        self.options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
        self.facts: dict = {"checks": []}

    def set(self, **facts) -> None:
        """Note facts."""
        self.facts.update(facts)
        self.write()

    def write(self) -> None:
        """Write everything that is known."""
        self.path.write_text(json.dumps(self.facts, default=str))

    def check(self, name: str, work) -> bool:
        """Run one check: ``work`` returns facts, with ``ok`` (default True); an exception is a failure.

        ``work`` may raise `Skip` where the device or the wheel does not have the thing.
        """
        started = time.monotonic()
        try:
            facts = work() or {}
            facts.setdefault("ok", True)
        except Skip as reason:
            facts = {"ok": None, "reason": str(reason)}
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            last = traceback.format_exc().strip().splitlines()[-12:]
            facts = {"ok": False, "reason": f"{type(error).__name__}: {error}"[:600], "trace": last}
        facts = {"name": name, **facts, "seconds": round(time.monotonic() - started, 3)}
        self.facts["checks"].append(facts)
        self.write()
        print(
            json.dumps({key: value for key, value in facts.items() if key != "trace"}, default=str),
            flush=True,
        )
        return facts["ok"] is True


class Skip(Exception):
    """A check that does not apply here; the text says why."""
