"""Where Invoke finds every command: `invoke build` here is `armory build` anywhere. See build_recipes/door."""

from __future__ import annotations

import os
import sys

# Invoke switches bytecode files off, so that every start would compile some 360 modules again: half of its time.
sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))

from build_recipes.door.program import namespace  # noqa: E402

__all__ = ["namespace"]
