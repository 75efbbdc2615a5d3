"""From a wheel for many GPUs to a wheel for one device: audit, choose, make, write, patch, audit again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from build_recipes.audit import origin
from build_recipes.audit.audit import NOT_USABLE, READY, Audit, OnDevice, audit_distribution
from build_recipes.audit.coverage import JIT, NOT_NEEDED
from build_recipes.facts.device import Device, canonical, device
from build_recipes.formats.wheel import Wheel
from build_recipes.kit.console import counted, size, step, warn
from build_recipes.kit.data import write_atomic
from build_recipes.kit.errors import AuditFailed
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.once import remove_tree
from build_recipes.kit.paths import Places
from build_recipes.specialise import modules, papers, patches
from build_recipes.specialise.choose import JIT as LEFT
from build_recipes.specialise.images import Assemble, Store, as_document
from build_recipes.wheelhouse.index import write_index
from build_recipes.wheelhouse.rewrite import Edits, rewrite

MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class Options:
    """How a wheel is specialised."""

    native: bool = True
    """Assemble PTX that a driver would compile at first use, and pack SASS that is stored plain."""
    keep_ptx: bool = False
    """Keep the newest PTX of needed families, for GPUs to come."""
    remake: frozenset[str] = frozenset()
    """Families (families.toml) that are made from PTX even where the wheel has SASS: a proof on a GPU."""


@dataclass(frozen=True)
class Result:
    """One specialised wheel in wheels/."""

    device: str
    wheel: Path
    manifest: Path
    size: int
    """Bytes of the wheel."""
    installed: int
    """Bytes of its members."""
    before: OnDevice
    """The audit's verdict on the source."""
    after: OnDevice
    units: dict[str, int]
    """How many units became what."""
    kept_whole: dict[str, str]
    """Modules whose device code was left as it is, with the reason."""
    patched: patches.Applied
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON and the manifest."""
        return {
            "device": self.device,
            "wheel": str(self.wheel),
            "size": self.size,
            "installed": self.installed,
            "verdict": self.after.verdict,
            "reasons": list(self.after.reasons),
            "source_verdict": self.before.verdict,
            "units": self.units,
            "kept_whole": self.kept_whole,
            "patches": self.patched.as_dict(),
            "seconds": self.seconds,
        }


def specialise(
    source: Path,
    names: Sequence[str],
    options: Options,
    *,
    digest: str,
    places: Places,
    work: Path,
    assemble: Assemble,
) -> list[Result]:
    """Make one wheel for each device, and put them into wheels/.

    :param digest: SHA-256 of the source, in hex.
    :param work: a folder for this wheel alone; images that a stopped run has made are found again.
    :param assemble: makes the images that are not in the cache; may stop with `Checkpointed`.
    :raises AuditFailed: the source is damaged or cannot be used on a device, or a result lost something.
    :raises NotAWheel, UnsafeArchive: it is not a vLLM wheel.
    :raises ToolchainMismatch: its PTX needs a ptxas that is not known.
    """
    names = list(dict.fromkeys(map(canonical, names)))
    store = Store(places.cache, work)
    remove_tree(work / "modules")
    with modules.Unpacking(source, work / "modules") as wheel:
        before = audit_distribution(wheel, names)
        before.check()
        before.check_devices(names)
        for name in names:
            step("audit", f"{source.name} on {name}: {before.devices[name].verdict}")
        parts = modules.parts(wheel, before)
        how = modules.Making(
            places, store, native=options.native, keep_ptx=options.keep_ptx, remake=options.remake
        )
        chosen = {name: modules.plan(parts, device(name), how) for name in names}
        jobs = modules.missing(chosen.values(), store)
        if jobs:
            assemble(jobs, store)
        done = []
        for name in names:
            started = time.monotonic()
            maker = _Maker(wheel, digest, name, options, places, work / name)
            done.append(maker.make(before, parts, chosen[name], store, started))
    for folder in ("modules", "in", "out"):
        remove_tree(work / folder)
    write_index(places.wheels)
    return done


@dataclass(frozen=True)
class _Maker:
    """One device's wheel."""

    wheel: modules.Unpacking
    digest: str
    name: str
    options: Options
    places: Places
    work: Path

    @property
    def device(self) -> Device:
        """The device."""
        return device(self.name)

    def make(
        self,
        before: Audit,
        parts: Sequence[modules.Part],
        chosen: modules.Chosen,
        store: Store,
        started: float,
    ) -> Result:
        remove_tree(self.work)
        entries, told = modules.made_images(chosen, store)
        put = modules.rewritten(self.wheel, parts, chosen, entries, self.work / "new")
        patched = patches.apply(self.wheel, self.device, self.work / "patched")
        put |= patched.files
        kind = "remade" if self.options.remake else "native" if self.options.native else "slim"
        version = version_of(self.wheel.version, modules.cuda_of(parts), self.name, kind)
        story = papers.Story(
            source=self.wheel.path.name,
            sha256=self.digest,
            version=version,
            device=self.name,
            native=self.options.native,
            keep_ptx=self.options.keep_ptx,
            toolkits=modules.toolkits(chosen),
            images=told,
            patches=patched.applied,
            changed=sorted(put),
            families={
                family: one.native + one.jit + one.absent
                for family, one in before.devices[self.name].families.items()
            },
        )
        put |= {origin.SBOM: papers.sbom(story), papers.NOTICE: papers.notice(story)}
        edits = Edits(version=version, platform=_platform(before), put=put)
        made = rewrite(self.wheel, self.work / "out", edits, epoch=papers.epoch())
        with Wheel(made) as opened:
            after = audit_distribution(opened, [self.name])
            installed = sum(member.file_size for member in opened.members.values())
        whole = {part.path for part in parts if part.kept}
        whole |= {path for path, units in chosen.choices.items() if any(one.what == LEFT for one in units)}
        gate(before, after, self.name, self.options, whole)
        result = Result(
            device=self.name,
            wheel=self.places.wheels / made.name,
            manifest=self.places.wheels / f"{made.name.removesuffix('.whl')}.manifest.json",
            size=made.stat().st_size,
            installed=installed,
            before=before.devices[self.name],
            after=after.devices[self.name],
            units=chosen.tally(),
            kept_whole={part.path: part.kept for part in parts if part.kept},
            patched=patched,
            seconds=round(time.monotonic() - started, 2),
        )
        self._publish(made, result, story, after, chosen)
        return result

    def _publish(
        self, made: Path, result: Result, story: papers.Story, after: Audit, chosen: modules.Chosen
    ) -> None:
        """Put the manifest, the wheel and its statement into wheels/, each in one step."""
        document = {
            "schema": MANIFEST_SCHEMA,
            "wheel": {"name": made.name, "size": result.size, "sha256": file_sha256(made)},
            "specialised": {**story.parameters, **result.as_dict()},
            "patches": list(story.patches),
            "images": {name: as_document(one) for name, one in story.images.items()},
            "chosen": {
                path: [
                    {
                        "what": one.what,
                        "families": list(one.families),
                        "kept": [entry.name for entry in one.keep],
                    }
                    for one in units
                ]
                for path, units in chosen.choices.items()
            },
            "audit": {"allowed": [], **after.as_dict()},
        }
        write_atomic(result.manifest, json.dumps(document, indent=1, default=str))
        beside = result.wheel.with_name(f".{made.name}.new")
        try:
            shutil.copyfile(made, beside)
            beside.replace(result.wheel)
        finally:
            beside.unlink(missing_ok=True)
        papers.write_statement(story, result.wheel)
        remove_tree(self.work)
        step("wheel", f"{result.wheel.name}, {size(result.size)}, {result.after.verdict}")


def version_of(version: str, toolkit: str, name: str, kind: str) -> str:
    """The version of a specialised wheel: ``0.33.0+cu130.thor.native``.

    :param toolkit: the version of CUDA that made its images (``13.0.88``); not told where it is empty.
    :param kind: ``native``, ``slim`` or ``remade``.
    """
    found = Version(version)
    words = found.local.split(".") if found.local else []
    if not words and toolkit:
        words = ["cu" + "".join(toolkit.split(".")[:2])]
    if name not in words:
        words.append(name)
    words.append(kind)
    return f"{found.public}+{'.'.join(words)}"


def gate(before: Audit, after: Audit, name: str, options: Options, whole: set[str]) -> None:
    """Refuse a result that lost something, or that does not keep what its name says.

    :param whole: modules that may hold PTX: left as they are, or with families that are taken seldom.
    :raises AuditFailed: with the reason.
    """
    known = {one.id for one in before.failing()}
    faults = [one.text for one in after.failing() if one.id not in known]
    verdict = after.devices[name]
    if verdict.verdict == NOT_USABLE:
        faults += verdict.reasons
    for family, one in verdict.families.items():
        old = before.devices[name].families.get(family)
        if one.status == NOT_NEEDED or old is None:
            continue
        if one.native + one.jit < old.native + old.jit:
            faults.append(f"{family}: {old.native + old.jit} kernels were there, {one.native + one.jit} are")
        if options.native and one.status == JIT:
            faults.append(f"{family}: {counted(one.jit_units, 'unit is', 'units are')} left to the driver")
    if options.native and not options.keep_ptx:
        left = {
            target
            for module in after.modules
            if module.path not in whole
            for target in module.code
            if target.startswith("compute_")
        }
        faults += [f"PTX for {target} is left" for target in sorted(left)]
    if faults:
        raise AuditFailed(
            f"{after.wheel} does not keep its promise:\n" + "\n".join(f"  {text}" for text in faults),
            "nothing was published; report this with the source wheel's name",
        )
    if options.native and verdict.verdict != READY:
        warn(f"{after.wheel}: {verdict.verdict} ({'; '.join(verdict.reasons)})")


def _platform(audit: Audit) -> str:
    """The platform tag that its modules really ask for, where the file's own says less."""
    machines = {module.machine for module in audit.modules if module.machine}
    if not any(one.id == "glibc" for one in audit.findings) or len(machines) != 1:
        return ""
    return f"manylinux_{audit.glibc.replace('.', '_')}_{machines.pop()}"


__all__ = ["Options", "Result", "specialise", "version_of"]
