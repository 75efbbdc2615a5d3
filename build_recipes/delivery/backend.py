# mypy: ignore-errors
"""Run in a project's source folder by the Python of its build environment: its own build backend makes the wheel.

The way of PEP 517, without isolation. Usage: backend.py OUT BACKEND [PATH...]
"""

import importlib
import sys

out, name, *paths = sys.argv[1:]
sys.path[:0] = paths
sys.argv = ["setup.py"]
module, _, attribute = name.partition(":")
backend = importlib.import_module(module)
for part in filter(None, attribute.split(".")):
    backend = getattr(backend, part)
backend.build_wheel(out)
