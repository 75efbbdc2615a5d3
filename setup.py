"""What pyproject.toml cannot say: three things that lie at the top of the repository travel inside the package.

The package finds them in a checkout where they are, and in an installed copy beside itself (kit/paths.py).
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithData(build_py):
    """Copy patches/, uv.lock and pyproject.toml into the package; an editable install reads them in place."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # noqa: TID251  an older version's files
        super().run()
        if not self.editable_mode:
            package = Path(self.build_lib, "build_recipes")
            self.copy_tree("patches", str(package / "patches"))
            self.mkpath(str(package / "project"))
            for name in ("pyproject.toml", "uv.lock"):
                self.copy_file(name, str(package / "project" / name))


setup(cmdclass={"build_py": WithData})
