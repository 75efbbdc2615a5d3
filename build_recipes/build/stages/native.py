"""After the link: what is left to the driver's compiler in families that the device needs is assembled here.

vLLM's CMake gives Marlin and the Hadamard transform PTX alone for newer GPUs. The units' PTX is in the modules, so
no object has to be compiled again: the wheel is rewritten with the cubins in place of the PTX.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from build_recipes.audit import origin
from build_recipes.audit.audit import audit_distribution
from build_recipes.audit.coverage import JIT
from build_recipes.build.plan import Plan
from build_recipes.build.units.assemble import assemble
from build_recipes.kit.console import counted
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.once import remove_tree
from build_recipes.specialise import modules, papers
from build_recipes.specialise.images import Store
from build_recipes.wheelhouse.rewrite import Edits, rewrite


@dataclass(frozen=True)
class Assembled:
    """What the stage did."""

    wheel: Path
    """Rewritten where there was something to assemble; its name stays."""
    images: int
    """Units that were assembled."""
    seconds: float

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{counted(self.images, 'unit')} of PTX assembled"
            if self.images
            else "nothing is left to the driver"
        )


def assemble_left(plan: Plan, cuda_home: Path, source: Path, began: float) -> Assembled:
    """Assemble the PTX of needed families that has no SASS beside it.

    :param cuda_home: the toolkit that compiled it, whose ptxas does this, too.
    :param source: the packaged wheel.
    :param began: `time.monotonic` value from which the time box counts.
    :raises Checkpointed: the time box ended; images that are made are kept.
    :raises CompileFailed: ptxas stopped.
    """
    started = time.monotonic()
    work = plan.tree / "native"
    store = Store(plan.places.cache, work)
    with modules.Unpacking(source, work / "modules") as wheel:
        audit = audit_distribution(wheel, [plan.device_name])
        families = audit.devices[plan.device_name].families.values()
        if not any(one.status == JIT for one in families):
            remove_tree(work)
            return Assembled(source, 0, round(time.monotonic() - started, 2))
        parts = modules.parts(wheel, audit)
        how = modules.Making(
            plan.places, store, pack=False, offline=plan.request.offline, cuda_home=cuda_home
        )
        chosen = modules.plan(parts, plan.device, how)
        jobs = modules.missing([chosen], store)
        if jobs:
            box = plan.request.time_box
            left = max(1.0, box - (time.monotonic() - began)) if box else 0.0
            assemble(jobs, store, cores=plan.jobs, time_box=left)
        paths = {path for path, _ in chosen.jobs}
        entries, told = modules.made_images(chosen, store)
        put = modules.rewritten(
            wheel, [part for part in parts if part.path in paths], chosen, entries, work / "new"
        )
        story = papers.Story(
            source=source.name,
            sha256=file_sha256(source),
            version=plan.wheel_version,
            device=plan.device_name,
            native=True,
            keep_ptx=False,
            toolkits=modules.toolkits(chosen),
            images=told,
            patches=(),
            changed=sorted(put),
        )
        made = rewrite(
            source,
            source.parent,
            Edits(put={**put, origin.SBOM: papers.sbom(story)}),
            epoch=plan.epoch,
        )
    remove_tree(work)
    return Assembled(made, len(chosen.jobs), round(time.monotonic() - started, 2))
