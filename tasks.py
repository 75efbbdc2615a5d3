"""The front door: Invoke finds every command here. The tasks themselves are in build_recipes/door."""

from __future__ import annotations

import os
import sys

from invoke.collection import Collection
from invoke.tasks import Task

# Invoke switches bytecode files off, so that every start would compile some 360 modules again: half of its time.
sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))

from build_recipes.door import building, machine, nights, project, sources, wheels  # noqa: E402

MODULES = (building, sources, wheels, machine, nights, project)
namespace = Collection(
    *(value for module in MODULES for value in vars(module).values() if isinstance(value, Task))
)
