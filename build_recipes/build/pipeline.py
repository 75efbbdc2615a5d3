"""The way a build takes: lock, fetch, patch, provision, compile, package, audit, publish."""

from __future__ import annotations

import dataclasses
import time

from build_recipes.build.clean import sweep
from build_recipes.build.disk import check_disk, drop_downloads, told_when_full
from build_recipes.build.plan import Plan
from build_recipes.build.result import Result
from build_recipes.build.stages import canary as canaries
from build_recipes.build.stages import compile as compiling
from build_recipes.build.stages import gate, publish, record, rust, smoke, sources
from build_recipes.build.stages.given import check_given
from build_recipes.build.stages.native import assemble_left
from build_recipes.build.stages.package import describe, package
from build_recipes.build.stages.patch import Patched, apply_series
from build_recipes.build.stages.provision import Provisioned, provision
from build_recipes.build.stages.trees import fetch_sources
from build_recipes.build.whole import gather
from build_recipes.kit.console import duration, say, step, warn
from build_recipes.sources.fetch import Fetched
from build_recipes.sources.modules import makeup
from build_recipes.toolchain import distro


def build(plan: Plan, *, install: bool = False) -> Result:
    """Build the wheel of a plan, or go on where an earlier run stopped.

    :param install: install missing distribution packages (needs root).
    :raises ArmoryError: one class per cause; everything finished so far is kept.
    """
    started = time.monotonic()
    publish.check_writable(plan.places.wheels)
    plan.facts.check_python(plan.tag, plan.host.python)
    spare = check_disk(plan)
    distro.ensure(plan.host, cross=plan.cross, install=install)
    check_given(plan)
    with told_when_full(plan.tree, plan.places.cache, plan.places.wheels), record.tree_lock(plan.tree):
        step(
            "plan",
            f"{plan.tag} for {plan.device.title}: {plan.wheel_version}, fingerprint {plan.fingerprint}",
        )
        sweep(plan.places, plan.tree)
        sources.distrust(plan.tree)
        fetched = fetch_sources(plan)
        theirs = None if plan.request.smoke else gather(plan, makeup(fetched.vllm), fetched.missing)
        patched = patch_sources(plan, fetched)
        sources.settle(plan.tree)
        made = provision(plan)
        drop_downloads(plan, spare)
        step(
            "provision",
            f"torch {made.torch_version} (CUDA {made.torch_cuda}), toolkit {made.cuda_version} ({made.cuda_origin})",
        )
        if plan.request.smoke:
            compiled, sample = smoke.smoke_units(plan, fetched, made, started)
        else:
            send_canary(plan, made)
            compiled, sample = compiling.compile_units(plan, fetched, made, started), None
        step("compile", compiling.summary(compiled))
        compiled, programs = (compiled, {}) if plan.request.smoke else rust.programs(plan, fetched, compiled)
        packaged = package(plan, fetched, patched, made, compiled, theirs=theirs, programs=programs)
        step("package", describe(packaged))
        native = assemble_left(plan, made.cuda_home, packaged.wheel, started)
        packaged = dataclasses.replace(packaged, wheel=native.wheel)
        step("native", native.summary())
        for line in packaged.completeness.lines():
            say(line)
        for target, users in packaged.unresolved.items():
            warn(f"{target}, which {users[0]} imports in any case, is not in the wheel")
        audited = gate.audit_gate(plan, made, compiled, packaged)
        step("audit", audited.summary())
        built = publish.Built(plan, fetched, patched, made, compiled, packaged, audited, theirs, sample)
        done = publish.publish(built)
        step("publish", str(done.wheel))
    return Result(done.wheel, done.manifest, False, time.monotonic() - started)


def patch_sources(plan: Plan, fetched: Fetched) -> Patched:
    """Apply the series for this pair to vLLM and the external trees that are there."""
    real = {name: path for name, path in fetched.trees.items() if name not in fetched.missing}
    done = apply_series({"vllm": fetched.vllm, **real}, plan.version, plan.device)
    step("patch", ", ".join(sorted({entry.id for entry in done.applied})) or "nothing to patch")
    return done


def send_canary(plan: Plan, made: Provisioned) -> None:
    """Try the toolchain in seconds before an hour is spent; once for each environment.

    :raises CanaryFailed: the big build would have failed for the same reason.
    """

    def work() -> dict[str, object]:
        result = canaries.canary_of_plan(plan, made)
        canaries.check(result)
        return {"code": list(result.code), "ran": result.ran, "seconds": result.seconds}

    inputs = [
        made.torch_version,
        made.cuda_version,
        str(made.cuda_home),
        plan.device.arch_list,
        str(made.python),
    ]
    done = record.once(plan.tree, "canary", inputs, work)
    step("canary", f"{', '.join(done.outputs['code'])} in {duration(done.seconds)}")
