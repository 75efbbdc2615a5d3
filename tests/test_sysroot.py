"""A cross build bound to another C library than the compiler's own."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from build_recipes.build.plan import check_glibc, make_plan
from build_recipes.build.request import Request, without_places
from build_recipes.facts import versions
from build_recipes.kit.errors import GlibcTooNew, UsageError
from build_recipes.kit.paths import Places
from build_recipes.toolchain import sysroot
from build_recipes.toolchain.compilers import Compiler

CROSS = "aarch64-linux-gnu-g++"
HOST = Path("/usr/aarch64-linux-gnu")
needs_cross = pytest.mark.skipif(
    shutil.which(CROSS) is None or not (HOST / "include/features.h").is_file(),
    reason="no cross compiler here",
)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """This machine's C library for the other CPU, which calls itself 2.17 and has absolute links, as Debian's."""
    root = tmp_path / "root with a space"
    libraries = root / "usr/lib/aarch64-linux-gnu"
    libraries.mkdir(parents=True)
    for path in (HOST / "lib").iterdir():
        if path.is_file() and not path.name.startswith("libstdc++"):
            shutil.copy(path, libraries / path.name)
    (libraries / "libc.so").write_text("GROUP ( /usr/lib/aarch64-linux-gnu/libc.so.6 )\n")
    shutil.move(libraries / "libm.so.6", libraries / "libmath.so.6")
    (libraries / "libm.so").unlink(missing_ok=True)
    (libraries / "libm.so").symlink_to("/usr/lib/aarch64-linux-gnu/libmath.so.6")
    shutil.copytree(
        HOST / "include", root / "usr/include", ignore=shutil.ignore_patterns("c++", "linux", "asm*")
    )
    for name in ("linux", "asm", "asm-generic"):
        (root / "usr/include" / name).symlink_to(HOST / "include" / name)
    features = root / "usr/include/features.h"
    features.write_text(re.sub(r"(define\s+__GLIBC_MINOR__\s+)\d+", r"\g<1>17", features.read_text()))
    return root


@needs_cross
def test_the_compiler_sees_the_sysroot_and_not_its_own_library(older: Path, tmp_path: Path) -> None:
    root = sysroot.read(older, "aarch64")
    assert root.glibc == (2, 17)
    bound = sysroot.bind(Compiler(CROSS, "12.2.0"), root, tmp_path / "bin")
    for program, name in ((bound.cxx, "x.cc"), (bound.cc, "x.c")):
        source = tmp_path / name
        text = "#include <cmath>\n#include <vector>\n" if name == "x.cc" else "#include <math.h>\n"
        text += "#if __GLIBC_MINOR__ != 17\n#error not the sysroot\n#endif\n"
        source.write_text(
            text + '#ifdef __cplusplus\nextern "C"\n#endif\ndouble f(double x) { return pow(x, x); }\n'
        )
        made = tmp_path / f"{name}.so"
        subprocess.run([program, "-shared", "-fPIC", "-o", made, source, "-Wl,-t", "-lm"], check=True)
        linked = subprocess.run(
            [program, "-shared", "-fPIC", "-o", made, source, "-Wl,-t", "-lm"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        files = [line for line in linked.splitlines() if re.search(r"/lib(m|c|math)\.so", line)]
        assert files
        assert all(Path(line).resolve().is_relative_to(older.resolve()) for line in files), files
    before = Path(bound.cxx).stat().st_mtime_ns
    assert sysroot.bind(Compiler(CROSS, "12.2.0"), root, tmp_path / "bin") == bound
    assert Path(bound.cxx).stat().st_mtime_ns == before, "a compiler that changes is a cache that misses"


@needs_cross
def test_the_plan_is_bound_to_the_glibc_of_the_sysroot(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places.from_environment()
    plan = make_plan(Request(tag="v0.12.0", device="gh200"), places)
    if not plan.cross:
        pytest.skip("a native build takes no sysroot")
    newest = dataclasses.replace(plan.host, glibc=versions.facts().c23_glibc)
    with pytest.raises(GlibcTooNew) as caught:
        make_plan(plan.request, places, newest)
    assert "--sysroot DIR: make one" in caught.value.advice
    bound = make_plan(dataclasses.replace(plan.request, sysroot=str(older)), places, newest)
    assert bound.sysroot is not None
    check_glibc(bound)
    assert bound.fingerprint != plan.fingerprint, "another C library is another wheel"
    assert without_places(dataclasses.asdict(bound.request))["sysroot"] == "given"


def test_what_is_no_sysroot_is_said_with_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no headers of glibc") as caught:
        sysroot.read(tmp_path, "aarch64")
    assert "mmdebstrap --variant=extract" in caught.value.advice
    (tmp_path / "usr/include").mkdir(parents=True)
    (tmp_path / "usr/include/features.h").write_text("#define\t__GLIBC__\t2\n#define\t__GLIBC_MINOR__\t31\n")
    with pytest.raises(UsageError, match=r"no crti.o for aarch64"):
        sysroot.read(tmp_path, "aarch64")
