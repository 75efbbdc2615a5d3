"""Package: vLLM's own packaging on the finished objects, then a name, a tag and metadata that are true."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from build_recipes.build.own_imports import unresolved
from build_recipes.build.plan import Plan, suffix
from build_recipes.build.request import content_of, request_as_dict, without_places
from build_recipes.build.stages.compile import Compiled
from build_recipes.build.stages.patch import Patched
from build_recipes.build.stages.provision import Provisioned, files_used
from build_recipes.build.units.costs import read_journal
from build_recipes.build.whole import Completeness, Official, complete
from build_recipes.formats.licences import of_text, of_tree, of_wheel
from build_recipes.formats.wheel import Wheel, is_elf, required_glibc
from build_recipes.kit import ourselves, process
from build_recipes.kit.console import counted, size
from build_recipes.kit.errors import PackageFailed
from build_recipes.kit.once import remove_tree
from build_recipes.sources.download import path_of
from build_recipes.sources.fetch import Fetched
from build_recipes.sources.modules import makeup
from build_recipes.wheelhouse import provenance
from build_recipes.wheelhouse.rewrite import Edits, rewrite

DRIVER = Path(__file__).resolve().with_name("wheel_driver.py")
COMPANIONS = ("torchvision", "torchaudio", "xformers")
"""Projects whose own metadata name the one torch they fit; vLLM pins them beside its own torch."""


@dataclass(frozen=True)
class Packaged:
    """A wheel in the build tree, not published yet."""

    wheel: Path
    version: str
    platform_tag: str
    glibc: tuple[int, int]
    provenance: provenance.Inputs
    completeness: Completeness
    unresolved: dict[str, list[str]]
    """What modules of vLLM's import of each other in any case and is not in the wheel, with those modules."""
    seconds: float


def package(
    plan: Plan,
    fetched: Fetched,
    patched: Patched,
    made: Provisioned,
    compiled: Compiled,
    *,
    theirs: Official | None,
    programs: Mapping[str, Path],
) -> Packaged:
    """Make the wheel.

    :param theirs: the official wheel, to compare with and to take files from.
    :param programs: members that something else than setup.py made.
    :raises PackageFailed: setup.py stopped; its last words are given.
    """
    started = time.monotonic()
    work = plan.tree / "package"
    remove_tree(work)
    source = work / "source"
    shutil.copytree(
        fetched.vllm, source, symlinks=True
    )  # setup.py writes into its tree; ours stays as patched
    words: list[str | Path] = [
        *(made.python, DRIVER, compiled.folder, ",".join(compiled.modules)),
        *("build", "--build-lib", work / "lib", "bdist_wheel", "--dist-dir", work / "dist"),
        *("--plat-name", f"linux_{plan.device.machine}", "--py-limited-api", "cp38"),
    ]
    log = plan.tree / "logs/package.log"
    log.unlink(missing_ok=True)
    done = process.run(words, cwd=source, env=compiled.environment, log=log)
    wheels = sorted((work / "dist").glob("*.whl"))
    if not done.ok or len(wheels) != 1:
        words_said = "\n".join(done.tail[-20:])
        raise PackageFailed(
            f"vLLM's setup.py did not make a wheel (whole log: {log}):\n{words_said}", f"./inv diagnose {log}"
        )
    check_links(work / "lib")
    found = complete(
        wheels[0], makeup(fetched.vllm), compiled.parts, theirs, limited=limits(plan), more=programs
    )
    glibc = required_glibc(
        [
            path
            for path in [*(work / "lib").rglob("*"), *found.taken.values(), *programs.values()]
            if is_elf(path)
        ]
    )
    tag = f"manylinux_{glibc[0]}_{glibc[1]}_{plan.device.machine}"
    version = plan.wheel_version
    if found.partial and not suffix(plan.request):
        version += ".partial"
    inputs = dataclasses.replace(
        provenance_inputs(plan, fetched, patched, made, compiled),
        word=found.word,
        version=version,
        taken=found.as_dict(theirs.rows if theirs else None)["taken"],
        taken_from=theirs.pin.wheel if theirs else None,
    )
    inputs = dataclasses.replace(inputs, licences=licences(plan, fetched, inputs))
    wheel = rewrite(
        wheels[0],
        plan.tree / "out",
        Edits(
            version=version,
            platform=tag,
            requires=requirements(wheels[0], made.torch_version),
            put={
                provenance.MEMBER: provenance.sbom(content_of_build(plan, inputs)),
                **found.taken,
                **programs,
                **renamed(wheels[0], plan.wheel_version, version),
            },
        ),
        epoch=plan.epoch,
    )
    remove_tree(work)
    lost = {} if plan.request.smoke else unresolved(wheel, plan.places)
    seconds = round(time.monotonic() - started, 2)
    return Packaged(wheel, version, tag, glibc, inputs, found, lost, seconds)


NOT_CONTENT = ("host", "jobs", "tree")
"""Of a plan: where it is built, not what."""


def content_of_build(plan: Plan, inputs: provenance.Inputs) -> provenance.Inputs:
    """What decides the wheel's content: the document inside is the same bytes wherever and however it is built."""
    return dataclasses.replace(
        inputs,
        plan={key: value for key, value in inputs.plan.items() if key not in NOT_CONTENT},
        request=without_places(content_of(plan.request)),
        toolchain={"nvcc": inputs.toolchain["nvcc"]},
    )


def check_links(folder: Path) -> None:
    """Refuse a link among the files of a wheel: it would lead out of it.

    :raises PackageFailed: naming the link.
    """
    links = sorted(path for path in folder.rglob("*") if path.is_symlink())
    if links:
        raise PackageFailed(
            f"{links[0].relative_to(folder)} would be a link to {links[0].readlink()} in the wheel",
            "report this tag: an install rule of its CMake links a source tree instead of copying it",
        )


def limits(plan: Plan) -> list[str]:
    """Why a wheel of this plan cannot be whole, whatever is compiled."""
    request = plan.request
    words = [
        ("--smoke", ["yes"] if request.smoke else []),
        ("--only", request.only),
        ("--without", request.without),
    ]
    return [f"built with {option}" + ("" if option == "--smoke" else f" {','.join(values)}")
            for option, values in words if values]  # fmt: skip


def renamed(wheel: Path, before: str, now: str) -> dict[str, bytes]:
    """vLLM's own record of its version, where that is another now."""
    name = "vllm/_version.py"
    if before == now:
        return {}
    old, new = before.partition("+")[2], now.partition("+")[2]
    with Wheel(wheel) as opened:
        return {name: opened.text(name).replace(old, new).encode()} if name in opened.members else {}


def provenance_inputs(
    plan: Plan, fetched: Fetched, patched: Patched, made: Provisioned, compiled: Compiled
) -> provenance.Inputs:
    """What the wheel's provenance is made from, as far as it is known before packaging."""
    used = trees_used(fetched, compiled)
    from_wheel = {
        name: tree.from_wheel.wheel
        for name in used
        if (tree := plan.lock.tree(name)).from_wheel and not fetched.seals[name].startswith("git ")
    }
    return provenance.Inputs(
        lock=plan.lock,
        plan=without_places(plan.as_dict()),
        request=without_places(request_as_dict(plan.request)),
        patches=[dataclasses.asdict(entry) for entry in patched.applied],
        toolchain={"nvcc": made.cuda_version, "python": "{}.{}".format(*plan.host.python)},
        torch=made.torch_version,
        commit=fetched.commit,
        trees=[name for name in used if name not in from_wheel],
        tree_wheels=from_wheel,
        files=files_used(plan, made),
        epoch=plan.epoch,
        started=began(plan),
    )


def trees_used(fetched: Fetched, compiled: Compiled) -> list[str]:
    """The external trees that something in the wheel was made from: they are there, and a module of theirs is made."""
    tag, made = makeup(fetched.vllm), {name.rpartition(".")[2] for name in compiled.modules}
    return [name for name in fetched.trees if name not in fetched.missing and made & set(tag.users(name))]


def licences(plan: Plan, fetched: Fetched, inputs: provenance.Inputs) -> dict[str, str]:
    """What vLLM, the trees and the downloads say of their licences, by the reference of the part."""
    with (fetched.vllm / "LICENSE").open(encoding="utf-8", errors="replace") as stream:
        own = of_text(stream.read())
    found = {"vllm": own} | {f"tree:{name}": of_tree(plan.tree / "src" / name) for name in inputs.trees}
    found |= {f"tree:{name}": own for name in inputs.tree_wheels}
    for pin in inputs.downloads():
        path = path_of(pin, plan.places.downloads)
        if pin.project == "vllm":
            found[f"file:{pin.filename}"] = own
        elif pin.filename.endswith(".whl") and path.is_file():
            with Wheel(path) as opened:
                found[f"file:{pin.filename}"] = of_wheel(opened)
    return {name: licence for name, licence in found.items() if licence}


def began(plan: Plan) -> float:
    """When the build of this wheel began, seconds since 1970: with its first unit, nights ago perhaps."""
    first = next(read_journal(plan.tree / "units.jsonl"), None)
    return min(ourselves.STARTED, first["ended"] - first["wall_s"]) if first else ourselves.STARTED


def requirements(wheel: Path, torch: str) -> dict[str, str]:
    """Edits of ``Requires-Dist``, so that it says exactly the torch the wheel was built with.

    torch's companions lose their pins: their own metadata name the torch they fit, so a resolver finds the one
    that goes with ours; vLLM's pins go with another torch.
    """
    with Wheel(wheel) as opened:
        lines = opened.requires
    edits = {"torch": f"torch=={torch.partition('+')[0]}"}
    for line in lines:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) in COMPANIONS:
            marker = f" ; {requirement.marker}" if requirement.marker else ""
            edits[requirement.name] = f"{requirement.name}{marker}"
    return edits


def describe(done: Packaged) -> str:
    """One line on the wheel."""
    whole = done.completeness
    taken = f", {counted(len(whole.taken), 'file')} of {whole.compared}" if whole.taken else ""
    return f"{done.wheel.name}, {size(done.wheel.stat().st_size)}, {whole.word}{taken}"
