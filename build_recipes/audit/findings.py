"""What can be wrong with a wheel: each finding has an id, by which a build may accept it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement

from build_recipes.audit import coverage as verdict
from build_recipes.audit.closure import Closure, readable
from build_recipes.audit.families import family_table
from build_recipes.audit.scan import Module, Scan
from build_recipes.facts.device import device
from build_recipes.formats import abi
from build_recipes.formats.wheel import Distribution, incomplete
from build_recipes.kit.console import counted

if TYPE_CHECKING:
    from build_recipes.audit.promise import Promise


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    id: str
    """``kind`` or ``kind:subject``; stable, for ``--allow``."""
    severity: str
    """``error`` (the wheel is refused), ``warning`` or ``note``."""
    text: str
    advice: str
    breaks: bool = False
    """Whether the wheel cannot be used for it, on any device."""


def stem(path: str) -> str:
    """Module name of a path: ``vllm/_C.abi3.so`` is ``_C``.

    A third party's keeps its folder: ``vllm/third_party/deep_gemm/_C.cpython-312-....so`` is ``deep_gemm._C``, and not
    the module that every model calls.
    """
    whole = PurePosixPath(path)
    name = whole.name.split(".")[0]
    return f"{whole.parent.name}.{name}" if "third_party" in whole.parts else name


def completeness(wheel: Distribution) -> Iterator[Finding]:
    """A wheel that says of itself that it is not the whole."""
    if word := incomplete(wheel.version):
        yield Finding(
            word,
            "warning",
            f"a {word} wheel: not all that the device compiles and that the official wheel holds is in it",
            "its manifest says what is not, and why; build without --only, --without and --smoke",
        )


def archive(wheel: Distribution, seen: Scan) -> Iterator[Finding]:
    """RECORD against the members, and modules that cannot be read."""
    again = "build or fetch the wheel again"
    for kind, names, what in (
        ("record-wrong", seen.wrong, "not what RECORD says"),
        ("record-missing", seen.unrecorded, "not in RECORD"),
        ("record-absent", seen.absent, "in RECORD, but not in the wheel"),
    ):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            yield Finding(
                kind, "error", f"{counted(len(names), 'file is', 'files are')} {what}: {shown}", again, True
            )
    for module in seen.modules:
        if module.broken:
            yield Finding(f"broken:{stem(module.path)}", "error", module.broken, again, True)
        elif not module.registers:
            text = f"{module.path} has neither PyInit_{stem(module.path)} nor a registration of torch ops"
            yield Finding(
                f"no-entry:{stem(module.path)}", "error", f"{text}: nothing can import it", again, True
            )
    if not seen.modules:
        yield Finding("no-modules", "error", f"{wheel.path.name} has no compiled module", again, True)


def glibc(modules: Sequence[Module]) -> tuple[int, int]:
    """Least glibc of the modules, as a manylinux tag counts it."""
    return abi.required_glibc(modules)


def platform(wheel: Distribution, modules: Sequence[Module]) -> Iterator[Finding]:
    """File name, WHEEL and objects: do they agree?"""
    machines = sorted({module.machine for module in modules if module.machine})
    if len(machines) > 1:
        text = f"modules for {' and '.join(machines)} in one wheel"
        yield Finding("machines", "error", text, "build again from a clean tree", True)
    tags = wheel.file_tags()
    if not tags:
        yield Finding(
            "file-name",
            "error",
            f"{wheel.path.name} is not a wheel's file name",
            "name it name-version-tags.whl",
        )
    elif tags != wheel.tags:
        yield Finding(
            "tag-mismatch",
            "warning",
            f"the file name says {', '.join(tags)}, WHEEL says {', '.join(wheel.tags)}",
            "retag it: ./inv retag",
        )
    for platform_tag in sorted({tag.rsplit("-", 1)[-1] for tag in tags}):
        for machine in machines:
            if not platform_tag.endswith(machine):
                text = f"tagged {platform_tag}, but its modules are for {machine}"
                yield Finding("machine", "error", text, "build for the machine of the tag", True)
        yield from _glibc(platform_tag, modules, "warning")
    for module in modules:
        outside = [folder for folder in module.runpath if folder and not folder.startswith("$ORIGIN")]
        if outside:
            yield Finding(
                f"runpath:{stem(module.path)}",
                "warning",
                f"{module.path} looks for libraries in {', '.join(outside)}",
                "install it with cmake --install, which sets RUNPATH",
            )


def _glibc(platform_tag: str, modules: Sequence[Module], severity: str) -> Iterator[Finding]:
    told, least = abi.tag_glibc(platform_tag), glibc(modules)
    if told and told < least:
        yield Finding(
            "glibc",
            severity,
            f"tagged {platform_tag}, but its modules need what systems with glibc {_dotted(least)} have"
            f" ({_newest(modules)})",
            f"tag it manylinux_{least[0]}_{least[1]}",
        )


def _newest(modules: Sequence[Module]) -> str:
    return ", ".join(
        f"{family}_{_dotted(newest)}" for family, newest in sorted(abi.required(modules).items())
    )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def torch_pin(wheel: Distribution) -> str:
    """The torch of Requires-Dist (``==2.11.0``), empty where it names none."""
    for line in wheel.requires:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.name == "torch":
            return str(requirement.specifier)
    return ""


def linkage(wheel: Distribution, modules: Sequence[Module], closure: Closure | None) -> Iterator[Finding]:
    """CUDA majors, the torch pin, and symbols that would be missing at import."""
    majors = sorted({major for module in modules for major in module.cuda})
    if len(majors) > 1:
        text = f"modules link CUDA {' and '.join(map(str, majors))}"
        yield Finding("cuda-mixed", "error", text, "build all modules with one toolkit", True)
    if not re.fullmatch(r"==[\w.+!]+", torch_pin(wheel)):
        yield Finding(
            "torch-pin",
            "warning",
            f"Requires-Dist has torch{torch_pin(wheel) or ' not at all'}: its C++ ABI fits one version only",
            "pin the torch it was built with",
        )
    if closure is None:
        return
    for path, symbols in closure.symbols.items():
        names = ", ".join(readable(symbol) for symbol in symbols[:4])
        more = f" and {len(symbols) - 4} more" if len(symbols) > 4 else ""
        yield Finding(
            f"closure:{stem(path)}",
            "error",
            f"{path} would not import, {counted(len(symbols), 'symbol is', 'symbols are')} missing: {names}{more}",
            "use the torch it was built with, or build against this one",
            True,
        )
    users: dict[str, list[str]] = {}
    for path, libraries in closure.libraries.items():
        for library in libraries:
            users.setdefault(library, []).append(stem(path))
    for library, needing in users.items():
        yield Finding(
            f"library:{library}",
            "note",
            f"{library}, which {', '.join(needing)} need, was not given: its symbols were not checked",
            "give what brings it with --libraries",
        )


def promised(wheel: Distribution, modules: Sequence[Module], promise: Promise) -> Iterator[Finding]:
    """The build's promise: modules, machine, CUDA, SASS for the device."""
    there = {stem(module.path): module for module in modules}
    for platform_tag in sorted({tag.rsplit("-", 1)[-1] for tag in wheel.file_tags()}):
        yield from _glibc(platform_tag, modules, "error")
    entry = device(promise.device)
    if glibc(modules) > promise.newest_glibc:
        yield Finding(
            "glibc",
            "error",
            f"needs glibc {_dotted(glibc(modules))}, the system of {promise.device} has {_dotted(promise.newest_glibc)}"
            f" ({_newest(modules)})",
            "build on a system with that glibc or an older one, or on the device itself",
        )
    capability = entry.number
    for name in promise.modules:
        if name not in there:
            yield Finding(
                f"module:{name}",
                "error",
                f"{name} should be there and is not",
                f"build it: --only {name}",
                True,
            )
    for name in promise.left_out:
        yield Finding(
            f"left-out:{name}", "note", f"{name} was left out on purpose", f"build it: --only {name}"
        )
    for module in modules:
        name = stem(module.path)
        if module.machine and module.machine != entry.machine:
            text = f"{module.path} is for {module.machine}, {promise.device} has {entry.machine}"
            yield Finding(f"machine:{name}", "error", text, "check the cross compiler")
        if module.cuda and module.cuda != (promise.cuda,):
            text = f"{module.path} links CUDA {module.cuda[0]}, {promise.cuda} was promised"
            yield Finding(f"cuda:{name}", "error", text, "check CUDA_HOME")
        if name not in promise.modules:
            continue
        if module.units and not verdict.runs(module, entry):
            text = f"{module.path} has no code that runs on {promise.device} (sm_{capability})"
            yield Finding(
                f"no-code:{name}", "error", text, f"build with TORCH_CUDA_ARCH_LIST={entry.arch_list}"
            )
        elif name in promise.native and not verdict.has_sass(module, entry):
            text = f"{module.path} has no SASS for {promise.device} (sm_{capability}), only what is older"
            yield Finding(
                f"no-sass:{name}", "error", text, f"build with TORCH_CUDA_ARCH_LIST={entry.arch_list}"
            )
    for family, one in verdict.families(modules, entry).items():
        if one.status == verdict.ABSENT and family_table().family[family].core:
            text = f"no kernel of '{family}' has code for {promise.device}, and every model needs them"
            yield Finding(f"absent:{family}", "error", text, "build its units for the device, or patch them")
        elif one.status == verdict.ABSENT and one.empty:
            yield Finding(
                f"empty:{family}",
                "warning",
                f"all {counted(one.empty, 'kernel')} of '{family}' are empty for {promise.device}: they write nothing",
                "do not take this path on the device, or patch its architecture guard",
            )
    pinned = torch_pin(wheel)
    if promise.torch and pinned != f"=={promise.torch}":
        text = f"built with torch {promise.torch}, but Requires-Dist has torch{pinned or ' not at all'}"
        yield Finding("torch-promise", "error", text, "rewrite Requires-Dist")
