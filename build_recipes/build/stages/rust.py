"""Rust: the programs that vLLM's setup.py would have cargo build, compiled for the device without a network."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from build_recipes.build.modules import Part
from build_recipes.build.plan import Plan
from build_recipes.build.stages.compile import Compiled
from build_recipes.kit import process
from build_recipes.kit.console import step, warn
from build_recipes.kit.errors import ArmoryError, CompileFailed, SourceIncomplete
from build_recipes.sources import rust
from build_recipes.sources.fetch import Fetched
from build_recipes.sources.library import Library
from build_recipes.sources.mirrors import configured_mirrors
from build_recipes.sources.modules import Crate, Kind, makeup
from build_recipes.sources.rust import Toolchain


def programs(plan: Plan, fetched: Fetched, compiled: Compiled) -> tuple[Compiled, dict[str, Path]]:
    """Build what can be built; what cannot is told, and the official wheel's takes its place (`build.whole`).

    :returns: the parts with what was made, and the wheel's members with the files.
    """
    crates, made, parts = makeup(fetched.vllm).crates, dict[str, Path](), list[Part]()
    for part in compiled.parts:
        kept = part
        if part.defined is Kind.RUST and part.left_out != "not asked for":
            name, crate = part.module.target, crates[part.module.target]
            try:
                made[part.module.name.replace(".", "/", 1)] = _build(plan, fetched, crate, name)
                kept = Part(part.module, Kind.RUST, Kind.RUST)
            except ArmoryError as error:
                reason = str(error.args[0]).splitlines()[0]
                warn(f"{name} is not built: {reason}")
                kept = dataclasses.replace(part, left_out=f"not built: {reason}")
        parts.append(kept)
    return dataclasses.replace(compiled, parts=tuple(parts)), made


def _build(plan: Plan, fetched: Fetched, crate: Crate, name: str) -> Path:
    if not crate.program:
        raise SourceIncomplete(
            f"{name} is a Python extension in Rust, which is not cross-compiled here",
            "take the official wheel's",
        )
    folder = (fetched.vllm / crate.manifest).parent
    lock = next(
        (one / "Cargo.lock" for one in (folder, *folder.parents) if (one / "Cargo.lock").is_file()), None
    )
    if lock is None:
        raise SourceIncomplete(
            f"{crate.manifest} has no Cargo.lock: nothing pins its crates", "report this tag"
        )
    offline = plan.request.offline
    library = Library(plan.places.git, configured_mirrors(plan.request.mirrors), offline)
    config = rust.vendor(lock, plan.tree / "crates", library, plan.places.downloads)
    chosen = rust.toolchain(
        plan.places, plan.device.machine, least(fetched.vllm) or plan.facts.rust, plan.host, offline=offline
    )
    step("rust", f"{name} with Rust {chosen.version or 'of this machine'} for {plan.device.machine}")
    return cargo(
        chosen, fetched.vllm / crate.manifest, crate, machine=plan.device.machine, cross=plan.cross, config=config,
        into=plan.tree / "rust", log=plan.tree / "logs/rust.log",
        variables={"VLLM_RS_BUILD_VERSION": plan.version, "CARGO_BUILD_JOBS": str(plan.jobs)},
    )  # fmt: skip


def least(tree: Path) -> str:
    """The Rust that a tree asks for (rust-toolchain.toml); empty where it does not say."""
    path = tree / "rust-toolchain.toml"
    match = (
        re.search(r'^channel\s*=\s*"(\d+\.\d+)', path.read_text(), re.MULTILINE) if path.is_file() else None
    )
    return match.group(1) if match else ""


def cargo(
    chosen: Toolchain,
    manifest: Path,
    crate: Crate,
    *,
    machine: str,
    cross: bool,
    config: Path,
    into: Path,
    log: Path,
    variables: Mapping[str, str],
) -> Path:
    """Build one program.

    :param config: cargo's configuration that names the crates' folders (`rust.vendor`).
    :param into: cargo's folder, directly in the build tree: paths of the tree do not get into the program.
    :returns: the program.
    :raises CompileFailed: with cargo's last words.
    """
    target = rust.triple(machine)
    word = target.replace("-", "_")
    compiler = f"{machine}-linux-gnu-gcc" if cross else "gcc"
    environment = {
        **process.child_environment(),
        **chosen.environment(),
        "CARGO_HOME": str(into / "home"),
        "CARGO_TARGET_DIR": str(into),
        f"CARGO_TARGET_{word.upper()}_LINKER": compiler,
        f"CC_{word}": compiler,
        **(
            {f"CXX_{word}": f"{machine}-linux-gnu-g++", f"AR_{word}": f"{machine}-linux-gnu-ar"}
            if cross
            else {}
        ),
        **variables,
    }
    words: list[str | Path] = [chosen.cargo, "build", "--release", "--frozen", "--manifest-path", manifest]
    words += ["--target", target, "--config", config, *crate.arguments]
    words += ["--config", f'build.rustflags=["--remap-path-prefix={into.parent}=.."]']
    words += ["--features", ",".join(crate.features)] if crate.features else []
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    done = process.run(words, cwd=manifest.parent, env=environment, log=log)
    name = (
        crate.arguments[crate.arguments.index("--bin") + 1]
        if "--bin" in crate.arguments
        else manifest.parent.name
    )
    program = into / target / "release" / name
    if not done.ok or not program.is_file():
        raise CompileFailed(
            f"cargo did not build {name} (whole log: {log}):\n" + "\n".join(done.tail[-15:]),
            f"./inv diagnose {log}",
        )
    stripped = program.with_name(f"{name}.stripped")
    shutil.copy(program, stripped)
    process.run([f"{machine}-linux-gnu-strip" if cross else "strip", stripped], env=environment, log=log)
    return stripped
