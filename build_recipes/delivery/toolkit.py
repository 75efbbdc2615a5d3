# mypy: ignore-errors
"""Run where vLLM was installed, by the environment's own Python: the CUDA toolkit of its wheels is made whole.

NVIDIA's wheels have no ``lib64`` and none of the names that a linker asks for (``libcudart.so``); FlashInfer, which
compiles kernels at first use, links by both. Its one argument is the toolkit's folder.
"""

import re
import sys
from pathlib import Path


def link(name, target):
    if not name.exists():
        name.unlink(missing_ok=True)
        name.symlink_to(target)


home = Path(sys.argv[1])
for library in sorted((home / "lib").glob("lib*.so.*"), reverse=True):
    link(library.with_name(re.sub(r"\.so\..*", ".so", library.name)), library.name)
link(home / "lib64", "lib")
