"""A specialised wheel against its source, by other programs than our own.

    python benchmarks/specialise_oracle.py pypi:0.33.0 WHEEL...

For each module that was changed: cuobjdump (NVIDIA's, from PyPI) lists the images that we list; readelf says no more
of it than of the source; every kernel that the source's images of a unit hold is in the image that was kept or
made; the target's own loader (qemu-user for aarch64) loads it with all symbols bound at once, and the CUDA runtime
(a stand-in, like torch) is handed the same number of containers and the same kernels as by the source.
Prints one line a module; ends with 1 where one differs. Needs the cross compiler, qemu-user and the network.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from cuobjdump import cuobjdump, listing
from test_specialise import PROGRAM, RUNTIME

from build_recipes.audit.subject import resolve
from build_recipes.formats import cubin, fatbin
from build_recipes.formats.elf import Elf, mapped
from build_recipes.formats.wheel import Wheel, is_module
from build_recipes.kit.paths import Places
from build_recipes.specialise import shrink
from build_recipes.specialise.choose import nothing
from build_recipes.specialise.images import entry_points

SYSTEM = (
    "libc.so",
    "libm.so",
    "libdl.so",
    "libpthread.so",
    "libstdc++.so",
    "libgcc_s.so",
    "ld-linux",
    "librt.so",
)


def kernels(entries: tuple[fatbin.Entry, ...]) -> set[str]:
    """Kernels of a unit's images, PTX and SASS."""
    found: set[str] = set()
    for entry in entries:
        code = entry.decode()
        if entry.kind == "ptx":
            found |= entry_points(code)
        else:
            found |= {one.name for one in cubin.kernels(Elf(code, "cubin"))}
    return found


def counted(source: Path, made: Path) -> tuple[int, int, int]:
    """Units with code for the device, kernels in them, and kernels that only the source's other images have.

    The last are no fault of ours where the image is the source's own: vLLM compiles some for older GPUs alone.
    """
    units = kept = gone = 0
    with mapped(source) as old, mapped(made) as new:
        before, after = shrink.layout(old), shrink.layout(new)
        assert before is not None and after is not None
        for one, two in zip(before.wrappers, after.wrappers, strict=True):
            here = tuple(row for row in two.container.entries if row.arch != nothing().arch)
            if here:
                names = kernels(here[:1])
                units, kept = units + 1, kept + len(names)
                gone += len(kernels(one.container.entries) - names)
    return units, kept, gone


def stand_ins(module: Path, folder: Path, compiler: str) -> None:
    """Libraries with every symbol that a module wants of torch and CUDA."""
    root = Path("/usr") / compiler.removesuffix("-gcc") / "lib"
    root = root if root.is_dir() else Path("/usr/lib") / f"{platform.machine()}-linux-gnu"
    files = [
        path
        for name in ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1")
        if (path := root / name).exists()
    ]
    libraries = [Elf(path.read_bytes(), path.name) for path in files]

    def given(name: str) -> bool:
        return any(one.exports(name) for one in libraries)

    with mapped(module) as elf:
        machine_libraries = [name for name in elf.needed if not name.startswith(SYSTEM)]
        undefined, versions = elf.symbols.undefined, elf.version_needs
    for number, library in enumerate(machine_libraries):
        owned = [name for name, owner in undefined.items() if owner == library]
        if (
            number == 0
        ):  # what has no version may come from anywhere that the system's libraries do not give it
            owned += [name for name, owner in undefined.items() if not owner and not given(name)]
        if library.startswith("libcudart"):
            source = RUNTIME + "".join(
                f"int {name}(void) {{ return 0; }}\n" for name in owned if f"{name}(" not in RUNTIME
            )
        else:
            source = "".join(f"long {name}(void) {{ return 0; }}\n" for name in dict.fromkeys(owned))
        (folder / "stub.c").write_text(source)
        words = [
            compiler,
            "-w",
            "-shared",
            "-fPIC",
            "-fno-builtin",
            "stub.c",
            f"-Wl,-soname,{library}",
            "-o",
            library,
        ]
        if version := versions.get(library):
            (folder / "stub.map").write_text(f"{version[0]} {{ global: *; }};\n")
            words.append("-Wl,--version-script=stub.map")
        subprocess.run(words, cwd=folder, check=True)


def loaded(module: Path, folder: Path, runner: list[str]) -> tuple[str, Counter[str]]:
    """How the loader ended, and what the CUDA runtime's stand-in was told."""
    words = [*runner, str(folder / "program"), str(folder / "nothing.so"), str(module)]
    environment = {"LD_BIND_NOW": "1", "LD_LIBRARY_PATH": str(folder), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=300)
    lines = Counter(re.sub(r"^(466243b1 ba55ed50).*", r"\1", line) for line in done.stdout.splitlines())
    said = (
        "" if not done.returncode else done.stdout.strip().splitlines()[-1:] + done.stderr.splitlines()[-1:]
    )
    return (
        f"exit {done.returncode} {' '.join(said).replace(str(module), '')}",
        lines if not said else Counter(),
    )


def main() -> int:
    """Compare every named wheel with the source."""
    places = Places.from_environment()
    source, program, bad = resolve(sys.argv[1], places), cuobjdump(), 0
    with tempfile.TemporaryDirectory(dir=places.build) as scratch:
        for name in sys.argv[2:]:
            bad += compare(source, Path(name), Path(scratch), program)
    return 1 if bad else 0


def compare(source: Path, made: Path, scratch: Path, program: Path) -> int:
    """Compare one wheel; the number of modules that differ."""
    bad = 0
    with Wheel(source) as old, Wheel(made) as new:
        before, after = old.record(), new.record()
        changed = [
            path for path in old.members if is_module(path) and before[path].sha256 != after[path].sha256
        ]
        print(f"{made.name}: {len(changed)} modules changed")
        for path in changed:
            folder = scratch / "one"
            folder.mkdir(exist_ok=True)
            files = {}
            for which, wheel in (("old", old), ("new", new)):
                files[which] = folder / f"{which}.so"
                with files[which].open("wb") as stream:
                    stream.writelines(wheel.pieces(path))
            bad += report(path, files["old"], files["new"], folder, program)
    return bad


def report(path: str, old: Path, new: Path, folder: Path, program: Path) -> int:
    """Compare one module and say what was seen; 1 where it differs."""
    with mapped(new) as elf:
        ours = Counter((one.kind, f"sm_{one.arch}{one.suffix}") for one in fatbin.read(elf))
        machine = elf.machine
    same = listing(program, new) == ours
    said = [
        subprocess.run(["readelf", "-aW", one], capture_output=True, check=False).stderr for one in (old, new)
    ]
    units, kept, gone = counted(old, new)
    cross = machine != platform.machine()
    compiler = f"{machine}-linux-gnu-gcc" if cross else "gcc"
    runner = [f"qemu-{machine}-static", "-L", f"/usr/{machine}-linux-gnu"] if cross else []
    (folder / "program.c").write_text(PROGRAM)
    (folder / "empty.c").write_text("")
    subprocess.run([compiler, "program.c", "-o", "program", "-ldl"], cwd=folder, check=True)
    subprocess.run([compiler, "-shared", "-fPIC", "empty.c", "-o", "nothing.so"], cwd=folder, check=True)
    stand_ins(old, folder, compiler)
    first, second = (loaded(one, folder, runner) for one in (old, new))
    containers = second[1]["466243b1 ba55ed50"]
    named = sum(second[1].values()) - containers
    good = same and said[0] == said[1] and first == second
    if first != second:
        loader = f"loader: {first[0]} then {second[0]}, OTHERS THAN BEFORE"
    elif first[0].startswith("exit 0"):
        loader = f"loader: exit 0, {containers} containers and {named} kernels registered"
    else:  # modules that call torch's C++ API when they are loaded: stand-ins are no torch
        loader = f"loader: not shown, the source ends with the stand-ins, too ({first[0].split()[1]})"
    print(
        f"  {path}: cuobjdump {'agrees' if same else 'DIFFERS'} ({sum(ours.values())} images);"
        f" readelf {'as of the source' if said[0] == said[1] else 'SAYS MORE'};"
        f" {units} units with {kept} kernels, {gone} only in images for other GPUs; {loader}",
        flush=True,
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
