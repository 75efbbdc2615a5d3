"""Small trees for the tests of verify-omni, written as text."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

from build_recipes.verify.judge.verdict import Report, judge
from build_recipes.verify.read.store import Store
from build_recipes.verify.read.tree import OMNI, VLLM, Tree, open_tree

Files = dict[str, str]


def write(root: Path, package: str, files: Files, version: str = "1.0") -> Path:
    """A source tree; names without a slash are modules of the package, others paths below ``root``."""
    for name, text in {"__init__.py": "", **files}.items():
        path = root / (name if name.startswith("/") else f"{package}/{name}").lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    for folder in {path.parent for path in (root / package).rglob("*.py")}:
        (folder / "__init__.py").touch()
    project = package.replace("_", "-")
    (root / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n")
    return root


class Bench:
    """Judges a pair of small trees."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0
        self.store = Store(root / "store.sqlite")

    def tree(self, package: str, files: Files, version: str = "1.0") -> Tree:
        self.count += 1
        return open_tree(write(self.root / str(self.count), package, files, version), package, self.store)

    def judge(self, omni: Files, vllm: Files) -> Report:
        return judge(self.tree(OMNI, omni), self.tree(VLLM, vllm))

    def breaks(self, omni: str | Files, vllm: Files) -> list[str]:
        """``module.name`` of the breaks; ``omni`` is the text of one module, or several files."""
        files = {"worker.py": omni} if isinstance(omni, str) else omni
        return [f"{b.module}.{b.name}" if b.name else b.module for b in self.judge(files, vllm).breaks]
