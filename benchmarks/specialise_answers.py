"""What the CUDA runtime answers for every kernel of a specialised wheel, on a GPU; an emptied unit must not crash.

    here    python benchmarks/specialise_answers.py expect WHEEL --device h200 -o expected.json.gz
    here    python benchmarks/specialise_answers.py empty WHEEL --family layernorm -o _C_stable_libtorch.abi3.so
    there   python benchmarks/specialise_answers.py ask PREFIX expected.json.gz [--eager]
    there   python benchmarks/specialise_answers.py call _C_stable_libtorch.abi3.so

`expect` writes down, from the images in the wheel, which kernels have code for the device. `ask` loads each module of
an installed wheel after torch, behind a small library that is compiled there and sees what each module registers, asks
`cudaFuncGetAttributes` for each kernel, and launches those without an image: both answers must be an error of
`NO_KERNEL`, and that of all others no error. `empty` takes the images of one family out of a module, as for a unit
that has nothing for the device; `call` calls rms_norm of it as vLLM does: it must end with that error, not with a
crash, and the process must go on. `ask` and `call` need torch, a C compiler and a GPU, nothing of this project.
"""

from __future__ import annotations

import argparse
import ctypes
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

NO_KERNEL = {209, 98}
"""cudaErrorNoKernelImageForDevice; cudaErrorInvalidDeviceFunction: an image loads, and lacks the kernel (vLLM compiles
some kernels of a unit for older GPUs alone)."""
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
/* Stands before the CUDA runtime's registration, and can ask the runtime for each kernel afterwards. */
static struct { const void *host; const char *name; } *seen;
static long count, room;
static void *runtime(const char *name) {
    static void *library;
    if (!library && !(library = dlopen("libcudart.so.13", RTLD_LAZY | RTLD_NOLOAD))
        && !(library = dlopen("libcudart.so.13", RTLD_LAZY))) abort();
    void *found = dlsym(library, name);
    if (!found) abort();
    return found;
}
void __cudaRegisterFunction(void **handle, const char *host, char *stub, const char *name, int limit,
                            void *tid, void *bid, void *block, void *grid, int *size) {
    static void (*next)(void **, const char *, char *, const char *, int, void *, void *, void *, void *, int *);
    if (count == room) seen = realloc(seen, (room = room * 2 + 1024) * sizeof *seen);
    seen[count].host = host;
    seen[count++].name = strdup(name);
    if (!next) next = runtime("__cudaRegisterFunction");
    next(handle, host, stub, name, limit, tid, bid, block, grid, size);
}
long shim_count(void) { return count; }
const char *shim_name(long index) { return seen[index].name; }
int shim_attributes(long index) {
    char room[1024];
    int (*ask)(void *, const void *) = runtime("cudaFuncGetAttributes");
    int answer = ask(room, seen[index].host);
    ((int (*)(void))runtime("cudaGetLastError"))();
    return answer;
}
int shim_launch(long index) {
    struct { unsigned x, y, z; } one = {1, 1, 1};
    static char zeros[4096];
    void *arguments[256];
    int (*launch)(const void *, __typeof__(one), __typeof__(one), void **, size_t, void *);
    launch = runtime("cudaLaunchKernel");
    for (int number = 0; number < 256; number++) arguments[number] = zeros;
    int answer = launch(seen[index].host, one, one, arguments, 0, 0);
    ((int (*)(void))runtime("cudaGetLastError"))();
    return answer;
}
"""


def expect(wheel: Path, name: str) -> dict[str, dict[str, list[str]]]:
    """For each module, the kernels that have an image for the device, once for each unit."""
    from build_recipes.facts import architectures
    from build_recipes.facts.device import device
    from build_recipes.formats import cubin, fatbin
    from build_recipes.formats.elf import Elf
    from build_recipes.formats.wheel import Wheel, is_module
    from build_recipes.specialise.choose import nothing
    from build_recipes.specialise.images import entry_points

    number, found = device(name).number, {}
    with Wheel(wheel) as opened:
        for path in filter(is_module, opened.members):
            present: Counter[str] = Counter()
            units: dict[int, list[fatbin.Entry]] = {}
            for entry in fatbin.read(Elf(memoryview(b"".join(opened.pieces(path))), path)):
                units.setdefault(entry.unit, []).append(entry)
            for entries in units.values():
                loads = [
                    one for one in entries
                    if one.kind == "sass" and one.arch != nothing().arch
                    and architectures.loads(one.arch, one.suffix, number)
                ]  # fmt: skip
                names: set[str] = set()
                for one in loads:
                    names |= {kernel.name for kernel in cubin.kernels(Elf(one.decode(), path))}
                if not loads:
                    for one in entries:
                        if one.kind == "ptx" and architectures.compiles(one.arch, one.suffix, number):
                            names |= entry_points(one.decode())
                present.update(names)
            if units:
                found[path] = {"present": sorted(present.elements())}
    return found


def empty(wheel: Path, family: str, target: Path) -> str:
    """Write the first module with units of a family, without their images; what was done."""
    from build_recipes.audit.audit import audit_distribution
    from build_recipes.facts.device import devices
    from build_recipes.formats import fatbin
    from build_recipes.formats.elf import mapped
    from build_recipes.specialise import modules, shrink
    from build_recipes.specialise.choose import nothing_entry

    with tempfile.TemporaryDirectory() as folder, modules.Unpacking(wheel, Path(folder)) as opened:
        audit = audit_distribution(opened, list(devices())[:1])
        for part in modules.parts(opened, audit):
            if part.layout is None or not any(one and family in one.families for one in part.units):
                continue
            rows, gone = [], 0
            for unit, container in zip(part.units, part.containers, strict=True):
                hit = unit is not None and family in unit.families
                gone += hit
                rows.append([memoryview(nothing_entry())] if hit else [one.raw for one in container.entries])
            with target.open("wb") as stream:
                shrink.write(part.layout, [fatbin.packed(row) for row in rows], stream)
            with mapped(target) as new:
                shrink.check(part.layout.elf, new, rows)
            return f"{target}: {part.path} with {gone} of {len(rows)} units emptied"
    raise SystemExit(f"no unit of {family} in {wheel}")


def with_shim(words: list[str], eager: bool) -> int:
    """Run this program again behind the shim."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "shim.c", Path(folder) / "shim.so"
        source.write_text(SHIM)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-w", source, "-o", library, "-ldl"], check=True)
        more = {"LD_PRELOAD": str(library), "SHIM": str(library)}
        more["CUDA_MODULE_LOADING"] = "EAGER" if eager else "LAZY"
        done = subprocess.run([sys.executable, __file__, *words], env={**os.environ, **more}, check=False)
    return done.returncode


def ask(prefix: Path, expected: dict[str, dict[str, list[str]]]) -> int:
    """Ask the runtime for each kernel of each module; 1 where an answer is not the expected one."""
    import torch

    shim = ctypes.CDLL(os.environ["SHIM"])
    shim.shim_name.restype = ctypes.c_char_p
    shim.shim_count.restype = ctypes.c_long
    torch.zeros(1, device="cuda")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {os.environ['CUDA_MODULE_LOADING']}")
    bad = refused = 0
    for path, row in expected.items():
        if not (prefix / path).is_file():
            print(f"{path}: not there")
            continue
        start = shim.shim_count()
        ctypes.CDLL(str(prefix / path), mode=os.RTLD_NOW)
        answers: Counter[str] = Counter()
        images: Counter[str] = Counter()
        for index in range(start, shim.shim_count()):
            said = shim.shim_attributes(index)
            launched = shim.shim_launch(index) if said else 0
            images[shim.shim_name(index).decode()] += said == 0
            answers["image" if said == 0 else f"error {said}, launched: error {launched}"] += 1
            refused += bool(said and (said not in NO_KERNEL or launched not in NO_KERNEL))
        wanted = Counter(row["present"])
        others = [name for name in images | wanted if images[name] != wanted[name]]
        bad += len(others)
        print(
            f"{path}: {dict(answers)}; {len(others)} kernels answer otherwise than their images say",
            flush=True,
        )
        for name in others[:5]:
            print(f"  {name}: {wanted[name]} images in the file, {images[name]} found")
        torch.cuda.synchronize()
    total = (torch.arange(1000, device="cuda") * 2).sum().item()
    print(
        f"the context still works: {total == 999000}; {bad} kernels and {refused} errors are others than expected"
    )
    return 1 if bad or refused or total != 999000 else 0


def call(module: Path) -> int:
    """Call rms_norm of a module whose units for it were emptied."""
    import torch

    torch.ops.load_library(str(module.resolve()))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    x = torch.randn(4, 256, device="cuda", dtype=torch.bfloat16)
    out, weight = torch.empty_like(x), torch.ones(256, device="cuda", dtype=torch.bfloat16)
    try:
        torch.ops._C.rms_norm(out, x, weight, 1e-6)
        (x + 1).sum().item()
    except Exception as error:
        said = str(error).splitlines()[0]
    else:
        said = "nothing"
    again = (x.float() * 0 + 1).sum().item()
    print(f"rms_norm: {said}")
    print(f"and then 1024 ones add up to {again:.0f}")
    return 0 if "no kernel image" in said and again == 1024 else 1


def main() -> int:
    """Do what was asked."""
    parser: Any = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("expect", "empty", "ask", "call"))
    parser.add_argument("subject", type=Path, help="WHEEL, PREFIX or module")
    parser.add_argument("expected", type=Path, nargs="?")
    parser.add_argument("--device", default="h200")
    parser.add_argument("--family", default="layernorm")
    parser.add_argument("--eager", action="store_true", help="load all code when the context is made")
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    if asked.what == "expect":
        found = expect(asked.subject, asked.device)
        asked.output.write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))
        print({path: len(row["present"]) for path, row in found.items()})
    elif asked.what == "empty":
        print(empty(asked.subject, asked.family, asked.output))
    elif asked.what == "ask" and "SHIM" not in os.environ:
        return with_shim(sys.argv[1:], asked.eager)
    elif asked.what == "ask":
        return ask(asked.subject, json.loads(gzip.decompress(asked.expected.read_bytes())))
    else:
        return call(asked.subject)
    return 0


if __name__ == "__main__":
    sys.exit(main())
