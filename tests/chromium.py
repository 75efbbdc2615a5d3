"""A real Chromium for the tests of pages: the system's, else a pinned one from the npm registry.

Ubuntu's package of that name only points to a snap, which a container cannot have.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tarfile
import urllib.request
from pathlib import Path

import pytest
from untar import untar

from build_recipes.kit.paths import Places

URL = "https://registry.npmjs.org/@sparticuz/chromium/-/chromium-153.0.0.tgz"
SHA256 = "20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0"
PARTS = ("chromium", "fonts.tar", "al2023.tar", "swiftshader.tar")
UNPACK = """
const [input, output] = process.argv.slice(1), fs = require("fs"), brotli = require("zlib").createBrotliDecompress();
require("stream").pipeline(fs.createReadStream(input), brotli, fs.createWriteStream(output), error => {
  if (error) throw error; });
"""


def chromium() -> tuple[str, dict[str, str]]:
    """The program, and the environment to start it with; skips the test where there is none."""
    for name in ("chromium", "google-chrome", "chromium-browser"):
        program = shutil.which(name)
        if (
            program
            and subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0
        ):
            return program, {}
    if platform.machine() != "x86_64" or not shutil.which("node"):
        pytest.skip("no Chromium in PATH, and the pinned one is for x86_64 and needs node to unpack")
    folder = Places.from_environment().cache / "tests" / SHA256[:16]
    if not (folder / "chromium").exists():
        fetch(folder)
    libraries = {"LD_LIBRARY_PATH": str(folder / "lib"), "FONTCONFIG_FILE": str(folder / "fonts.conf")}
    return str(folder / "chromium"), {**os.environ, **libraries}


def fetch(folder: Path) -> None:
    """Download the pinned package, check it, and unpack it into ``folder``; the program is put there last."""
    with urllib.request.urlopen(URL, timeout=120) as answer:
        payload = answer.read()
    assert hashlib.sha256(payload).hexdigest() == SHA256
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.tgz").write_bytes(payload)
    with tarfile.open(folder / "package.tgz") as archive:
        for part in PARTS:
            member = archive.extractfile(f"package/bin/{part}.br")
            assert member is not None
            (folder / f"{part}.br").write_bytes(member.read())
    fonts = f"<fontconfig><dir>{folder}/fonts</dir><cachedir>{folder}/fonts-cache</cachedir></fontconfig>"
    for part in reversed(PARTS):
        subprocess.run(["node", "-e", UNPACK, folder / f"{part}.br", folder / f"{part}.new"], check=True)
        if part.endswith(".tar"):
            untar(folder / f"{part}.new", folder)
        else:
            (folder / "fonts.conf").write_text(fonts)  # the package's own looks below /tmp
            (folder / f"{part}.new").chmod(0o700)
            (folder / f"{part}.new").rename(folder / part)
    for left in [*folder.glob("*.br"), *folder.glob("*.new"), folder / "package.tgz"]:
        left.unlink()
