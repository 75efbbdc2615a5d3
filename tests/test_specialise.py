"""Wheels for one device out of one for many: ELF rewriting, choice of images, the whole way."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from build_recipes.formats.elf import Buffer

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

import fuzz_modules
from cuobjdump import cuobjdump, listing
from wheel_maker import make_wheel

from build_recipes.audit import origin, subject
from build_recipes.audit.audit import audit_wheel
from build_recipes.audit.scan import Target, Unit, read_module
from build_recipes.build.advise import advise
from build_recipes.build.plan import make_plan
from build_recipes.build.rebuild import recorded
from build_recipes.build.request import Request
from build_recipes.build.specialising import source_of
from build_recipes.build.stages.native import assemble_left
from build_recipes.build.units.assemble import assemble
from build_recipes.facts.device import device, devices
from build_recipes.formats import fatbin
from build_recipes.formats.elf import Elf, mapped
from build_recipes.formats.inflate import Content
from build_recipes.formats.wheel import Wheel
from build_recipes.kit.errors import ArmoryError, AuditFailed, Checkpointed, CouldNotCheck, ToolchainMismatch
from build_recipes.kit.hashing import file_sha256
from build_recipes.kit.paths import Places
from build_recipes.specialise import choose as choosing
from build_recipes.specialise import shrink, toolkit, wheel
from build_recipes.specialise.choose import (
    FOREIGN,
    JIT,
    MADE,
    NATIVE,
    UNNEEDED,
    choose,
    nothing,
    nothing_entry,
)
from build_recipes.specialise.images import Store

DATA = Path(__file__).parent / "data" / "specialise"
MODULES = ("aarch64.so", "x86_64.so", "relr.so", "tls.so")


def chosen(elf: Elf, name: str, native: bool = False) -> list[choosing.Choice]:
    """What becomes of the three units of a module of `DATA`."""
    units = read_module("vllm/_C.abi3.so", Content(elf.data, b""), 0).units
    layout = shrink.layout(elf)
    assert layout is not None
    return [
        choose(one.container.entries, unit, device(name), native=native, keep_ptx=False)
        for one, unit in zip(layout.wrappers, units, strict=True)
    ]


def shrunk(module: Path, name: str, target: Path) -> list[list[Buffer]]:
    """Write a module for a device; its units' entries."""
    with mapped(module) as elf:
        layout = shrink.layout(elf)
        assert layout is not None
        entries = [
            [one.raw for one in row.keep] or [memoryview(nothing_entry())] for row in chosen(elf, name)
        ]
        with target.open("wb") as stream:
            done = shrink.write(layout, [fatbin.packed(row) for row in entries], stream)
        assert done.size == target.stat().st_size
        with mapped(target) as new:
            shrink.check(elf, new, entries)
        return [[bytes(one) for one in row] for row in entries]


@pytest.mark.parametrize(
    ("name", "native", "wanted"),
    [
        ("thor", False, [NATIVE, JIT, FOREIGN]),
        ("thor", True, [NATIVE, MADE, FOREIGN]),
        ("orin", True, [MADE, MADE, FOREIGN]),  # sm_80 does not load on a Tegra
        ("gh200", True, [NATIVE, JIT, NATIVE]),  # FlashAttention 2 is seldom taken on 9.0
        ("spark", False, [JIT, JIT, FOREIGN]),
    ],
)
def test_units_are_chosen_as_a_driver_would(name: str, native: bool, wanted: list[str]) -> None:
    with mapped(DATA / "aarch64.so") as elf:
        found = chosen(elf, name, native)
    assert [one.what for one in found] == wanted
    text = [one.make or one.keep[0] for one in found[1:2] if one.what in (MADE, JIT)]
    assert all(one.arch == 80 for one in text), "the newest PTX"


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("name", ["thor", "gh200", "spark"])
def test_a_module_shrinks_and_nothing_else_of_it_changes(module: str, name: str, tmp_path: Path) -> None:
    target = tmp_path / module
    shrunk(DATA / module, name, target)
    assert target.stat().st_size < (DATA / module).stat().st_size
    said = [
        subprocess.run(["readelf", "-aW", path], capture_output=True, text=True, check=True).stderr
        for path in (DATA / module, target)
    ]
    assert said[1] == said[0], "readelf has nothing to say that it did not say of the source"


def test_the_relocations_of_each_kind_are_there() -> None:
    kinds = {}
    for name in MODULES:
        with mapped(DATA / name) as elf:
            layout = shrink.layout(elf)
            assert layout is not None and len(layout.wrappers) == 3
            kinds[name] = {one.row is None for one in layout.wrappers}
    assert kinds == {"aarch64.so": {False}, "x86_64.so": {False}, "relr.so": {True}, "tls.so": {False}}


@pytest.mark.network
@pytest.mark.parametrize("module", MODULES)
def test_cuobjdump_sees_the_same_images(module: str, tmp_path: Path) -> None:
    target = tmp_path / module
    entries = shrunk(DATA / module, "thor", target)
    with mapped(target) as elf:
        ours = sorted((one.kind, f"sm_{one.arch}{one.suffix}") for one in fatbin.read(elf))
    assert sorted(listing(cuobjdump(), target).elements()) == ours
    assert len(ours) == sum(map(len, entries)) == 3


RUNTIME = r"""
#include <stdint.h>
#include <stdio.h>
/* Stands in for the CUDA runtime: says what the loader made of each wrapper. */
void **__cudaRegisterFatBinary(void *wrapper) {
    uint32_t *head = wrapper;
    uint8_t *at = *(uint8_t **)(head + 2);
    uint64_t size = *(uint64_t *)(at + 8);
    printf("%x %x", head[0], *(uint32_t *)at);
    for (uint8_t *entry = at + 16; entry < at + 16 + size;
         entry += *(uint32_t *)(entry + 4) + *(uint64_t *)(entry + 8))
        printf(" %d:%u", *(uint16_t *)entry, *(uint32_t *)(entry + 28));
    printf("\n");
    return (void **)wrapper;
}
void __cudaRegisterFunction(void **handle, const char *f, char *name) { printf("%s\n", name); }
"""
PROGRAM = r"""
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    if (!dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL) || !dlopen(argv[2], RTLD_NOW)) return puts(dlerror()), 1;
    return 0;
}
"""


@pytest.mark.parametrize(
    ("module", "machine"),
    [("x86_64.so", ""), ("relr.so", ""), ("tls.so", ""), ("aarch64.so", "aarch64")],
)
def test_the_loader_finds_the_new_containers(module: str, machine: str, tmp_path: Path) -> None:
    """dlopen by the target's own loader, all symbols bound at once, with a stand-in for the CUDA runtime."""
    compiler = f"{machine}-linux-gnu-gcc" if machine else "gcc"
    runner = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"] if machine else []
    if any(shutil.which(program) is None for program in (compiler, *runner[:1])):
        pytest.skip(f"this machine has no {compiler} or no qemu-user")
    with mapped(DATA / module) as elf:
        others = [name for name in elf.symbols.undefined if "cuda" in name and f"{name}(" not in RUNTIME]
    rest = "".join(f"int {name}(void) {{ return 0; }}\n" for name in others)
    (tmp_path / "runtime.c").write_text(RUNTIME + rest)
    (tmp_path / "program.c").write_text(PROGRAM)
    subprocess.run(
        [compiler, "-w", "-shared", "-fPIC", "runtime.c", "-o", "runtime.so"], cwd=tmp_path, check=True
    )
    subprocess.run([compiler, "program.c", "-o", "program", "-ldl"], cwd=tmp_path, check=True)
    shrunk(DATA / module, "thor", tmp_path / module)
    said = {}
    for path in (DATA / module, tmp_path / module):
        words = [*runner, str(tmp_path / "program"), str(tmp_path / "runtime.so"), str(path)]
        done = subprocess.run(
            words, capture_output=True, text=True, env={**os.environ, "LD_BIND_NOW": "1"}, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said[path] = done.stdout.splitlines()
    before, after = said.values()
    magic = "466243b1 ba55ed50"
    assert sorted(line for line in after if line.startswith(magic)) == [
        f"{magic} 1:80", f"{magic} 2:110", f"{magic} 2:{nothing().arch}",
    ]  # fmt: skip
    names = [[line for line in lines if not line.startswith(magic)] for lines in (before, after)]
    assert names[0] == names[1] and len(names[0]) == 3, "the same kernels are registered"


def test_the_comparison_sees_a_changed_byte_anywhere_it_counts(tmp_path: Path) -> None:
    source, target = DATA / "aarch64.so", tmp_path / "new.so"
    entries = shrunk(source, "thor", target)
    good, chance, seen = target.read_bytes(), random.Random(15), 0
    with mapped(source) as old:
        layout = shrink.layout(Elf(good))
        assert layout is not None
        filling = range(layout.code.offset, len(good))
        for _ in range(300):
            at = chance.randrange(len(good))
            data = bytearray(good)
            data[at] ^= 1 << chance.randrange(8)
            try:
                shrink.check(old, Elf(data, "flipped"), entries)
            except (ArmoryError, shrink.Fixed):
                seen += 1
            else:
                assert not good[at] and (at in filling or at < 64), f"a change at {at} was not seen"
    assert seen > 200


def test_relocatable_device_code_is_left_alone() -> None:
    with mapped(DATA.parent / "inspect" / "rdc.o") as elf, pytest.raises(shrink.Fixed, match="relocatable"):
        shrink.layout(elf)


def test_damage_ends_with_a_reason() -> None:
    """Mutated modules: refused, kept as they are, or rewritten so that the comparison holds; never a traceback."""
    found = fuzz_modules.run(800, 7)
    assert not found["TRACEBACK"], "the module is in /tmp/fuzz-module-*"
    assert min(found[word] for word in ("refused", "left as it is", "rewritten")) > 20


def source_wheel(folder: Path, **more: bytes) -> Path:
    """A wheel for many GPUs."""
    members = {
        "vllm/__init__.py": b"x = 1\n",
        "vllm/_C.abi3.so": (DATA / "aarch64.so").read_bytes(),
        **more,
    }
    return make_wheel(folder, members, version="0.33.0", tag="cp38-abi3-manylinux_2_34_aarch64")


def places_in(folder: Path) -> Places:
    return Places(folder / "cache", folder / "build", folder / "wheels")


def never(jobs: object, store: Store) -> None:
    raise AssertionError("nothing is to be made")


def make(
    source: Path, names: list[str], folder: Path, slim: bool = True, time_box: float = 0
) -> list[wheel.Result]:
    def work(jobs: object, store: Store) -> None:
        assemble(jobs, store, cores=2, time_box=time_box)  # type: ignore[arg-type]

    places = places_in(folder)
    if not slim:  # the pinned ptxas is fetched once for all tests
        places = Places(folder / "cache", folder / "build", folder / "wheels")
        (folder / "cache").mkdir(exist_ok=True)
        for name in ("downloads", "toolkits"):
            shared = getattr(Places.from_environment(), name)
            shared.mkdir(parents=True, exist_ok=True)
            if not (folder / "cache" / name).exists():
                (folder / "cache" / name).symlink_to(shared)
    return wheel.specialise(
        source, names, wheel.Options(native=not slim), digest=file_sha256(source), places=places,
        work=places.build / "work", assemble=never if slim else work,
    )  # fmt: skip


def test_a_slim_wheel_is_whole_named_and_for_its_device_alone(tmp_path: Path) -> None:
    source = source_wheel(tmp_path)
    one, two = make(source, ["thor", "jetson-orin"], tmp_path)
    assert one.wheel.name == "vllm-0.33.0+cu130.thor.slim-cp38-abi3-manylinux_2_34_aarch64.whl"
    assert (one.units, two.device) == ({NATIVE: 1, JIT: 1, FOREIGN: 1}, "orin")
    audit = audit_wheel(one.wheel)
    assert not audit.failing()
    verdicts = {name: row.verdict for name, row in audit.devices.items()}
    assert verdicts["thor"] == "runs with JIT"
    with Wheel(one.wheel) as made:
        info = made.dist_info
        notice = b"".join(made.pieces(f"{info}/licenses/NOTICE.vllm-armory")).decode()
        document = json.loads(b"".join(made.pieces(f"{info}/sboms/vllm-armory-specialise.cdx.json")))
    assert "vllm/_C.abi3.so" in notice and source.name in notice
    assert document["metadata"]["component"]["version"] == "0.33.0+cu130.thor.slim"
    manifest = json.loads(one.manifest.read_text())
    assert (
        manifest["specialised"]["device"] == "thor" and manifest["wheel"]["size"] == one.wheel.stat().st_size
    )
    with zipfile.ZipFile(one.wheel) as archive:
        assert archive.testzip() is None
    first = one.wheel.read_bytes()
    assert make(source, ["thor"], tmp_path)[0].wheel.read_bytes() == first, "the same bytes again"
    assert (tmp_path / "wheels/simple/vllm/index.json").exists()
    with pytest.raises(CouldNotCheck, match="made out of a wheel"):
        recorded(one.wheel)


def test_what_the_source_had_and_is_gone_is_named_by_the_audit(tmp_path: Path) -> None:
    (made,) = make(source_wheel(tmp_path), ["thor"], tmp_path)
    with Wheel(made.wheel) as opened:
        assert origin.families(opened) == {"flash-attention-2": 2, "layernorm": 1}
    (tmp_path / "gone").mkdir()
    name = "vllm-0.33.0.dist-info/sboms/vllm-armory-specialise.cdx.json"

    def audited(value: str) -> dict[str, Any]:
        row = {"name": origin.FAMILIES, "value": value}
        document = {"metadata": {"component": {"properties": [row]}}}
        path = source_wheel(tmp_path / "gone", **{name: json.dumps(document).encode()})
        return audit_wheel(path, ["spark", "thor"]).devices

    spark, thor = audited(origin.told({"qutlass": 18, "layernorm": 1, "unheard of": 3})).values()
    assert (spark.families["qutlass"].status, spark.families["qutlass"].absent) == ("absent", 18)
    assert "not there: QuTLASS" in spark.reasons
    assert thor.families["qutlass"].status == "not needed" and "unheard of" not in thor.families
    assert (thor.families["layernorm"].native, thor.families["layernorm"].absent) == (1, 0)
    for damaged in ("{", '{"qutlass": "many"}', "[]"):
        assert "qutlass" not in audited(damaged)["spark"].families


def test_a_wheel_that_cannot_serve_is_refused_with_the_reason(tmp_path: Path) -> None:
    source = source_wheel(tmp_path)
    with pytest.raises(AuditFailed, match="aarch64"):
        make(source, ["h200"], tmp_path)
    slim = make(source, ["gh200"], tmp_path)[0].wheel
    with pytest.raises(AuditFailed, match="cannot be used on thor"):
        make(slim, ["thor"], tmp_path)
    wrong = {"vllm/__init__.py": "vllm/__init__.py,sha256=" + "A" * 43 + ",6"}
    damaged = make_wheel(
        tmp_path, {"vllm/__init__.py": b"x = 1\n", "vllm/_C.abi3.so": (DATA / "aarch64.so").read_bytes()},
        version="0.33.1", tag="cp38-abi3-manylinux_2_34_aarch64", record=wrong,
    )  # fmt: skip
    with pytest.raises(AuditFailed, match="RECORD"):
        make(damaged, ["thor"], tmp_path)
    assert [path.name for path in (tmp_path / "wheels").glob("*.whl")] == [slim.name]


@pytest.mark.network
def test_ptx_is_made_native_resumed_and_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_wheel(tmp_path)
    with pytest.raises(Checkpointed, match=r"images? finished now"):
        make(source, ["thor", "orin"], tmp_path, slim=False, time_box=0.01)
    thor, orin = make(source, ["thor", "orin"], tmp_path, slim=False)
    assert (thor.after.verdict, orin.after.verdict) == ("ready", "ready")
    assert thor.units == {NATIVE: 1, MADE: 1, FOREIGN: 1} and orin.units == {MADE: 2, FOREIGN: 1}
    modules = {one.path: one for one in audit_wheel(orin.wheel, ["orin"]).modules}
    assert modules["vllm/_C.abi3.so"].code.keys() == {"sm_87", f"sm_{nothing().arch}"}
    verdicts = {name: row.verdict for name, row in audit_wheel(thor.wheel).devices.items()}
    assert {name for name, verdict in verdicts.items() if verdict == "ready"} == {"thor"}
    stamp = sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache/images").rglob("*.entry"))
    again = make(source, ["thor"], tmp_path, slim=False)[0]
    assert again.wheel.read_bytes() == thor.wheel.read_bytes()
    assert stamp == sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache/images").rglob("*.entry"))
    manifest = json.loads(thor.manifest.read_text())
    assert {row["ptxas"] for row in manifest["images"].values()} == {"13.0.88"}
    monkeypatch.setattr(subject, "official", lambda *_: source)
    advice = advise("v0.33.0", "thor", places_in(tmp_path))
    assert advice.take == "local" and advice.command == f"pip install {thor.wheel}"
    assert "nothing to the driver" in advice.say


@pytest.mark.network
def test_our_own_wheel_is_left_nothing_to_the_driver(tmp_path: Path) -> None:
    """The stage after the link: PTX alone becomes SASS, the wheel keeps its name, a second run has nothing to do."""
    places = places_in(tmp_path)
    (tmp_path / "cache").mkdir()
    for name in ("downloads", "toolkits"):
        (tmp_path / "cache" / name).symlink_to(getattr(Places.from_environment(), name))
    plan = make_plan(Request(tag="v0.12.0", device="thor"), places)
    source = make_wheel(
        tmp_path, {"vllm/_C.abi3.so": (DATA / "aarch64.so").read_bytes()}, version=plan.wheel_version,
        tag="cp38-abi3-manylinux_2_34_aarch64",
    )  # fmt: skip
    assert "runs with JIT" in audit_wheel(source, ["thor"]).devices["thor"].verdict
    kept = source.read_bytes()
    done = assemble_left(plan, tmp_path, source, time.monotonic())
    assert (done.wheel.name, done.images) == (source.name, 1)
    audit = audit_wheel(done.wheel, ["thor"])
    assert audit.devices["thor"].verdict == "ready" and not audit.failing()
    assert not any(name.startswith("compute_") for name in audit.modules[0].code)
    assert assemble_left(plan, tmp_path, done.wheel, time.monotonic()).images == 0

    # a machine without a network: the toolkit that compiled the wheel has the ptxas, nothing is fetched
    home = tmp_path / "cuda"
    home.mkdir()
    (home / "bin").symlink_to(toolkit.assembler("13.0.88", places).ptxas.parent)
    bare = dataclasses.replace(places, cache=tmp_path / "bare")
    source.write_bytes(kept)
    plan = make_plan(Request(tag="v0.12.0", device="thor", offline=True), bare)
    assert assemble_left(plan, home, source, time.monotonic()).images == 1
    assert not bare.downloads.exists() and not bare.toolkits.exists()


def test_an_image_is_made_again_for_a_proof() -> None:
    """--remake: the SASS that loads is taken away, and what runs instead was made from the PTX."""
    with mapped(DATA / "aarch64.so") as elf:
        (unit, *_) = read_module("vllm/_C.abi3.so", Content(elf.data, b""), 0).units
        layout = shrink.layout(elf)
        assert layout is not None
        entries = layout.wrappers[0].container.entries
        found = choose(entries, unit, device("gh200"), native=True, remake=["layernorm"])
        assert (found.what, found.make and found.make.name) == (MADE, "compute_80")
        assert choose(entries, unit, device("gh200"), native=True, remake=["marlin"]).what == NATIVE
        text = layout.wrappers[1].container.entries
        of_cutlass = Unit({Target("ptx", 80, "", "9.0"): {"scaled-mm-c2x": (1, 0)}})
        assert choose(text, of_cutlass, device("thor"), native=True).what == UNNEEDED, (
            "an error, no silent garbage"
        )
        idle = Unit({Target("sass", 110, "", ""): {"scaled-mm-sm100": (0, 4)}})
        assert choose(entries, idle, device("thor"), native=True).what == choosing.EMPTY


@pytest.mark.network
def test_the_image_for_nothing_is_what_ptxas_makes(tmp_path: Path) -> None:
    tools = toolkit.assembler("13.0.88", Places.from_environment())
    (tmp_path / "n.ptx").write_text(nothing().ptx.strip())
    arch = nothing().arch
    for words in (
        [str(tools.ptxas), f"-arch=sm_{arch}", "n.ptx", "-o", "n.cubin"],
        [str(tools.fatbinary), "-64", "-compress-all", "-compress-mode=size", "--create=n.fatbin",
         f"--image3=kind=elf,sm={arch},file=n.cubin"],
    ):  # fmt: skip
        subprocess.run(words, cwd=tmp_path, check=True)
    (container,) = fatbin.containers(memoryview((tmp_path / "n.fatbin").read_bytes()), "")
    made, kept = (
        container.entries[0],
        next(iter(fatbin.containers(memoryview(fatbin.packed([nothing_entry()])), ""))),
    )
    assert len(bytes(made.decode())) == kept.entries[0].size
    assert base64.b64decode(nothing().entry)[:64] == bytes(made.raw[:64])
    assert all(one.number // 10 != arch // 10 for one in devices().values()), "no device of ours loads it"


def test_ptx_newer_than_its_toolkit_is_refused() -> None:
    assert toolkit.version_for((9, 0), "13.0.88") == "13.0.88"
    assert toolkit.version_for((9, 0), "").startswith("13.0.")
    with pytest.raises(ToolchainMismatch, match=r"13\.1"):
        toolkit.version_for((9, 1), "13.0.88")
    with pytest.raises(ToolchainMismatch, match="unknown"):
        toolkit.version_for((99, 0), "")
    with pytest.raises(ToolchainMismatch, match=r"12\.8"):
        toolkit.pin("12.8.93")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "should come first"),
        ("--device", "should come first"),
        ("https://example.org/vllm-1-py3-none-any.whl", "no hash"),
        ("https://example.org/vllm-1-py3-none-any.whl#sha256=12", "no hash"),
        (f"https://example.org/vllm.zip#sha256={'0' * 64}", "not an address of a wheel"),
        ("/nowhere/vllm.whl", "does not exist"),
        ("/tmp", "is not a wheel"),
    ],
)
def test_what_is_no_source(text: str, why: str) -> None:
    with pytest.raises(ArmoryError, match=why) as told:
        source_of(text, Places.from_environment(), "aarch64")
    assert told.value.advice


def test_version_names() -> None:
    assert wheel.version_of("0.33.0", "13.0.88", "thor", "native") == "0.33.0+cu130.thor.native"
    assert wheel.version_of("0.33.0", "", "orin", "slim") == "0.33.0+orin.slim"
    assert wheel.version_of("0.26.0+cu130.thor", "13.0.88", "thor", "native") == "0.26.0+cu130.thor.native"
