"""Readers of what a checkout, the cache, a board, another machine, an installed copy and the sources of a tag hold."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import mutate
import tomli_w
from target import Target, put
from wheel_maker import DATA, make_wheel

from build_recipes.audit import exports, installed, origin
from build_recipes.build import registrations
from build_recipes.build.stages import given
from build_recipes.build.survey import cells as kept_cells
from build_recipes.build.survey import sampling
from build_recipes.build.units import costs, graph
from build_recipes.delivery import companions, image
from build_recipes.delivery.looked import looked, qualified
from build_recipes.doctor import checks_build
from build_recipes.doctor.consult import consult
from build_recipes.doctor.machine import read_machine
from build_recipes.doctor.report import print_report
from build_recipes.formats import fatbin
from build_recipes.formats.elf import Elf
from build_recipes.formats.wheel import Wheel
from build_recipes.kit import http
from build_recipes.kit.data import decoded, load_toml, parse_toml
from build_recipes.kit.paths import LOCKS, PACKAGE, Places
from build_recipes.nightly import extract
from build_recipes.nightly.page import survey as survey_page
from build_recipes.nightly.publishing import catalogue
from build_recipes.qualify import ops
from build_recipes.qualify.trial import Manifest, findings_of
from build_recipes.sources import derive, mirrors, parts, rust
from build_recipes.sources.lockfile import load_lock
from build_recipes.specialise import images
from build_recipes.specialise.toolkit import Assembler

WHEEL = "vllm-0.12.0-cp38-abi3-manylinux_2_31_aarch64.whl"
SNAPSHOTS = Path(__file__).resolve().parents[1] / "snapshots"


def places_of(folder: Path) -> Places:
    return Places(folder / "cache", folder / "build", folder / "wheels")


def packed(*rows: object) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows]


# -- several files in one input ------------------------------------------------------------------

MARK = b"\n=== file\n"


def joined(folder: Path, names: list[str]) -> bytes:
    """The files of a folder as one input; those that are not there are empty."""
    return MARK.join((folder / name).read_bytes() if (folder / name).is_file() else b"" for name in names)


def spread(data: bytes, folder: Path, names: list[str]) -> None:
    """The files of an input below a folder, as far as there are; empty ones are left out."""
    for name, content in zip(names, data.split(MARK), strict=False):
        if content:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


# -- the survey ----------------------------------------------------------------------------------


def cells() -> list[bytes]:
    whole = {"tag": "v0.12.0", "device": "thor", "stage": "done", "cpu_s": 9.0, "units": {"_C": ["a.cu.o"], "x": None},
             "modules": {"_C": {"kind": "kernel", "units": 3, "native": 2, "jit": 1, "none": 0}}, "lacks": ["cutlass v4"],
             "compiled": {"_C": {"unit": "_C/a.cu.o", "codes": ["sm_110"], "pair": "v0.12.0 thor", "ok": True, "seconds": 3}}, "missing": {"cutlass": "_C"}}  # fmt: skip
    return packed(whole, {"tag": "v0.11.1", "device": "orin", "stage": "fetch", "error": "x", "code": 26})


def read_cell(data: bytes, folder: Path) -> bool:
    """A cell that a survey left, told and written to the page of the survey."""
    cell = kept_cells.read(put(data, folder, "v0.12.0-thor.json"))
    if cell is not None:
        kept_cells.one_line(kept_cells.costed(kept_cells.in_order([cell])[0]))
    put(b"[%s]" % data, folder, "survey.json")
    drawn = survey_page.read(folder / "survey.json")
    return cell is not None and bool(drawn.rows)


def read_sample(data: bytes, folder: Path) -> bool:
    return sampling._read(put(data, folder, "x.json")) is not None


# -- caches --------------------------------------------------------------------------------------


@cache
def made_image() -> tuple[images.Job, bytes, bytes]:
    """A job, the entry that answers it, and what is kept of it."""
    entry = next(
        one for one in fatbin.read(Elf((DATA / "thor.so").read_bytes(), "thor.so")) if one.kind == "sass"
    )
    ptxas = Assembler("13.0.88", Path("ptxas"), Path("fatbinary"), "0" * 64, None)
    job = images.Job("_C/0.sm_110", "pack", entry.name, (), ptxas, hashlib.sha256(b"x").digest(), entry.size)
    return job, bytes(entry.raw), msgspec.json.encode(images._made(job, entry, bytes(entry.decode())))


def read_image(data: bytes, folder: Path, *, told: bool = True) -> bool:
    """A finished image is taken when all that is said of it is so."""
    job, entry, made = made_image()
    store = images.Store(folder, folder / "work")
    place = store._place(job)
    place.parent.mkdir(parents=True)
    place.with_suffix(".entry").write_bytes(entry if told else data)
    place.with_suffix(".json").write_bytes(data if told else made)
    found = store.get(job)
    assert found is None or (found[0], msgspec.json.encode(found[1])) == (entry, made)
    return found is not None


@cache
def exported() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        read_exports(b"", Path(folder))
        (kept,) = Path(folder).glob("cache/exports/*")
        return [kept.read_bytes()]


def read_exports(data: bytes, folder: Path) -> bool:
    """What torch exports, from the cache: as it is in the wheel, whatever the cache says."""
    module = (DATA / "thor.so").read_bytes()
    (folder / "torch").mkdir()
    wheel = make_wheel(folder / "torch", {"torch/lib/libtorch.so": module})
    kept = f"cache/exports/{hashlib.sha256(wheel.read_bytes()).hexdigest()}.json.zst"
    if data:
        put(data, folder, kept)
    found = exports.of_wheel(wheel, places_of(folder))
    assert [one.soname for one in found] == [Elf(module, "x").soname or "libtorch.so"]
    assert found[0].names == Elf(module, "x").symbols.defined
    return (folder / kept).read_bytes() == data


def read_units_before(data: bytes, folder: Path) -> bool:
    graph.compare(put(data, folder, "units.json"), ["_C"], ["_C/a.cu.o"])
    return True


# -- configuration and tables --------------------------------------------------------------------


def read_mirrors(data: bytes, folder: Path) -> bool:
    (folder / "repo/.git").mkdir(parents=True)
    return bool(mirrors.mirrors_of(put(data, folder, "armory.toml")))


def read_costs(data: bytes, folder: Path) -> bool:
    load_toml(put(data, folder, "costs.toml"), costs.Table)
    return True


def cost_table() -> list[bytes]:
    text = (PACKAGE / "build/units/costs.toml").read_text()
    head, *rows = text.split("[[rule]]")
    return ["[[rule]]".join([head, *rows[:4]]).encode()]


def read_retry_after(data: bytes, folder: Path) -> bool:
    text = data.decode("latin-1").replace("\n", " ")
    return http.asked_to_wait({"Retry-After": text}, "https://example.org/") > 0


# -- companions and boards -----------------------------------------------------------------------


@cache
def target() -> companions.Target:
    return companions.target_of("v0.12.0", None, "thor")


@cache
def companion_sets() -> list[bytes]:
    plain = parse_toml((LOCKS / "companions/pylock.v0_12_0-thor-312.toml").read_text())
    rows = [row for row in plain["packages"] if row.get("wheels")]
    return [tomli_w.dumps({**plain, "packages": rows[:3]}).encode()]


def read_companions(data: bytes, folder: Path) -> bool:
    found = companions._read(target(), put(data, folder, "pylock.toml"))
    json.dumps(found.as_dict())
    return True


def built() -> list[bytes]:
    row = {"name": "nixl", "version": "1.0", "wheel": "nixl-1.0-py3-none-any.whl", "code": "runs", "reason": "r",
           "device": "thor", "torch": target().torch, "python": "3.12", "sdist": "0" * 64, "build": {}}  # fmt: skip
    return packed({**row, "sha256": hashlib.sha256(b"a wheel").hexdigest()})


def read_built(data: bytes, folder: Path) -> bool:
    """A companion that was built here: what is taken for it lies in ``wheels/`` and is what its record says."""
    wheel = put(b"a wheel", folder, "wheels/nixl-1.0-py3-none-any.whl")
    put(data, folder, f"wheels/nixl{companions.RECORD}")
    entry = companions.Entry("nixl", "", companions.NO_WHEEL, "", "", "", None)
    before = companions.Companions(target(), (entry,), (), (), folder / "x")
    found = companions._with_built(before, places_of(folder))
    assert set(found.built) <= {wheel}
    return bool(found.built)


def board() -> list[bytes]:
    row: dict[str, Any] = {
        "machine": "aarch64", "system": "Ubuntu 24.04", "kernel": "6.8", "glibc": "2.39", "python": "3.12.3", "l4t": "R38",
        "compatible": ["nvidia,tegra264"], "gpus": ["NVIDIA GB10"], "driver": "", "memory": {"total": 5, "available": None}, "disk_free": 9,
        "home": "/home/a", "root": False, "cores": 14, "files": {"/a.part": None, "/a": {"size": 3, "sha256": "0"}},
    }  # fmt: skip
    return packed(row)


def read_board(data: bytes, _: Path) -> bool:
    from build_recipes.delivery.deliver import described

    said = looked(data.decode("utf-8", "replace"), ["/a"])
    described(said)
    return said["disk_free"] >= 0 and "." in said["python"]


def read_qualified(data: bytes, _: Path) -> bool:
    for tier in qualified(data.decode("utf-8", "replace")).get("tiers", []):
        f"{tier['number']} {tier['name']:<9} {tier['result']:<8} {tier['reason']}"
    return True


FILES = [
    "etc/os-release", "etc/nv_tegra_release", "etc/environment", "proc/meminfo", "proc/cpuinfo", "proc/sys/kernel/osrelease",
    "proc/device-tree/model", "proc/device-tree/compatible", "proc/driver/nvidia/version", "var/lib/dpkg/status",
    "proc/driver/nvidia/gpus/0/information", "usr/local/cuda-13.0/version.json", "opt/x/lib/python3.12/site-packages/torch/version.py",
    "opt/x/lib/python3.12/site-packages/triton/__init__.py",
]  # fmt: skip


def machines() -> list[bytes]:
    """Snapshots of machines, with a torch and a toolkit where they have none."""
    found = []
    for name in ("thor", "orin-nx", "gh200"):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "root"
            shutil.copytree(SNAPSHOTS / name, root)
            put(b'{"cuda_nvcc": {"version": "13.0.88"}}', root, FILES[11])
            put(b"__version__ = '2.11.0+cu130'\ncuda: str = '13.0'\n", root, FILES[12])
            put(b"__version__ = '3.5.0'\n", root, FILES[13])
            found.append(joined(root, FILES))
    return found


vars(checks_build)["load_lock"] = cache(load_lock)  # it is read once, not for each snapshot


def read_snapshot(data: bytes, folder: Path) -> bool:
    """``./inv doctor --root``: any machine's files are told of."""
    spread(data, folder, FILES)
    report = consult(read_machine(folder), "thor", "v0.12.0")
    print_report(report)
    json.dumps(report.as_dict())
    return True


# -- beside a wheel, and in it -------------------------------------------------------------------


def manifests() -> list[bytes]:
    return packed({
        "wheel": {"name": WHEEL}, "plan": {"fingerprint": "f", "device": "thor"}, "audit": {"allowed": ["x"]},
        "left_out": {"_C": "smoke"}, "ops": {"_C": ["a"]}, "units": {"a": {"cached": False, "cpu_s": 1.0}},
    })  # fmt: skip


def read_manifest(data: bytes, folder: Path) -> bool:
    """What an image, a qualification and a night ask of a manifest."""
    path = put(data, folder, WHEEL.replace(".whl", ".manifest.json"))
    image.fingerprint(folder / WHEEL)
    said = extract.extract("build", {"manifest": str(path), "wheel": "x", "up_to_date": False})
    try:
        found = decoded(data, Manifest)
    except ValueError:
        return False
    ops.wanted(ops.OpCalls({"_C": ("a", "b")}, {}), found.left_out, found.ops)
    return bool(said) and set(found.audit.allowed) is not None


def read_zip_times(data: bytes, folder: Path) -> bool:
    return image.epoch_of(put(data, folder, WHEEL)) > 0


def small_wheel() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [make_wheel(Path(folder), {"vllm/__init__.py": b"x = 1\n"}).read_bytes()]


def read_origin(data: bytes, folder: Path) -> bool:
    name = origin.SBOM.replace("{dist_info}", "vllm-0.12.0.dist-info")
    with Wheel(make_wheel(folder, {name: data})) as opened:
        return bool(origin.families(opened))


def origins() -> list[bytes]:
    rows = [{"name": origin.FAMILIES, "value": origin.told({"marlin": 3, "flash_attention_2": 9})}]
    return packed({"metadata": {"component": {"properties": rows}}})


def copies() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        put_copy(Path(folder))
        return [joined(Path(folder), COPY)]


COPY = ["vllm-0.12.0.dist-info/METADATA", "vllm-0.12.0.dist-info/WHEEL", "vllm-0.12.0.dist-info/RECORD"]


def put_copy(folder: Path) -> None:
    """An installed vLLM."""
    texts = ("Metadata-Version: 2.1\nName: vllm\nVersion: 0.12.0\nRequires-Dist: torch==2.11.0\n",
             "Wheel-Version: 1.0\nTag: cp38-abi3-manylinux_2_31_aarch64\n",
             "vllm/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\nvllm/_C.abi3.so,,\n")  # fmt: skip
    for name, text in zip(COPY, texts, strict=True):
        put(text.encode(), folder, name)


def read_copy(data: bytes, folder: Path) -> bool:
    """An installed copy: nothing outside of its folder is read for it."""
    site = folder / "site"
    spread(data, site, COPY)
    put(b"", site, "vllm/__init__.py")
    put(b"\x7fELF", site, "vllm/_C.abi3.so")
    found = installed.Installed(site)
    for name in found.members:
        assert (site / name).resolve().is_relative_to(site.resolve())
        found.content(name)
    found.file_tags()
    return True


def read_findings(data: bytes, _: Path) -> bool:
    from build_recipes.qualify.report import judge

    judge(findings_of(data)["checks"])
    return True


# -- the nights ----------------------------------------------------------------------------------


def catalogues() -> list[bytes]:
    row = dict.fromkeys(
        ("project", "version", "requires_python", "metadata", "device", "label", "run", "url", "commit"), "x"
    )
    entry = {
        **row,
        "file": WHEEL,
        "sha256": "0" * 64,
        "size": 3,
        "version": "0.12.0+cu130.thor",
        "time": "2026-01-01T00:00:00Z",
        "beside": {"a": "0" * 64},
    }
    return packed({"schema": 1, "wheels": [entry]})  # fmt: skip


def read_catalogue(data: bytes, _: Path) -> bool:
    found = catalogue.read(data, "a release")
    catalogue.merged(found, found, [WHEEL]).text()
    return bool(found.wheels)


# -- the sources of a tag ------------------------------------------------------------------------

TREE = ["CMakeLists.txt", "requirements/build.txt", "vllm/envs.py", "rust-toolchain.toml"]


def trees() -> list[bytes]:
    texts = (
        b'set(PYTHON_SUPPORTED_VERSIONS "3.10" "3.13")\nset(CMAKE_CXX_STANDARD 17)\n'
        b"if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 11.3)\n",
        b"cmake>=3.26\nninja\ntorch==2.11.0\nsetuptools>=77,<81 ; python_version > '3.9'\n",
        b'VLLM_MAIN_CUDA_VERSION: lambda: os.getenv("VLLM_MAIN_CUDA_VERSION", "").lower() or "13.0",\n',
        b'[toolchain]\nchannel = "1.90"\n',
    )
    return [MARK.join(texts)]


def read_tree(data: bytes, folder: Path) -> bool:
    """What a tree says that it needs."""
    from build_recipes.facts import versions

    spread(data, folder, TREE)
    derive.differs(derive.derive(folder), versions.for_version("0.12.0"))
    return True


CARGO = f"""version = 4
[[package]]
name = "vllm-rs"
version = "0.1.0"
dependencies = ["serde"]
[[package]]
name = "serde"
version = "1.0.228"
source = "{rust.REGISTRY}"
checksum = "{"9a" * 32}"
[[package]]
name = "harmony"
version = "0.0.11"
source = "git+https://github.com/oss-harmony/harmony?tag=v0.0.11#{"76" * 20}"
"""


def read_cargo(data: bytes, folder: Path) -> bool:
    """Crates of a Cargo.lock: each name is a folder's, and each is pinned."""
    for one in rust.crates_of(put(data, folder, "Cargo.lock")):
        assert (folder / f"{one.name}-{one.version}").parent == folder
        if one.source.startswith("git+"):
            rust._git_source(one.source)
        assert not one.source or len(one.checksum or one.source.rpartition("#")[2]) >= 40
    return True


@cache
def parted() -> tuple[Path, str]:
    """A lock, and the name of a part of it."""
    name = min(parts.used(LOCKS))
    return next(path for path in sorted(LOCKS.glob("v*.toml")) if name in path.read_text()), name


def read_part(data: bytes, folder: Path) -> bool:
    """A part of a lock that was changed, or torn."""
    lock, name = parted()
    put(lock.read_bytes(), folder, f"locks/{lock.name}")
    put(data, folder, f"locks/parts/{name}.toml")
    load_lock(lock.stem, folder / "locks")
    return True


def a_part() -> list[bytes]:
    return [(LOCKS / "parts" / f"{parted()[1]}.toml").read_bytes()]


OPS = b"""#include <torch/library.h>
#ifdef USE_ROCM
#endif
TORCH_LIBRARY_EXPAND(TORCH_EXTENSION_NAME, ops) {
  ops.def("rms_norm(Tensor! result, Tensor input, float epsilon) -> ()");
  ops.def(
      "x::dispatch(Tensor a, "
      "int b) -> ()");
}
TORCH_LIBRARY_FRAGMENT(CONCAT(TORCH_EXTENSION_NAME, _cache_ops), m) { m.def("swap(Tensor a) -> Tensor"); }
"""
CALLS = b"""import torch
def f(x):
    if hasattr(torch.ops._C, "gone"):
        return torch.ops._C.gone(x)
    return torch.ops._moe_C.topk(x) + getattr(torch.ops._C, "maybe")(x)
"""


def read_ops(data: bytes, folder: Path) -> bool:
    """Ops that C++ declares and that Python calls."""
    text = data.decode("utf-8", "replace")
    list(registrations.declared(text, "_C"))
    ops.registered([data])
    ops.wanted(ops.calls([("a.py", text)]), [], {"_C": ["gone"]})
    return True


def read_torch(data: bytes, folder: Path) -> bool:
    put(data, folder, "version.py")
    return given.declared(folder) is not None


TARGETS: dict[str, Target] = {
    "survey": Target(cells, read_cell, mutate.document),
    "sample": Target(
        lambda: packed({"unit": "_C/a.cu.o", "codes": ["sm_110"], "pair": "v0.12.0 thor", "ok": True, "seconds": 3.0}),
        read_sample, mutate.document,
    ),
    "image": Target(lambda: [made_image()[2]], read_image, mutate.document),
    "image entry": Target(lambda: [made_image()[1]], lambda data, folder: read_image(data, folder, told=False)),
    "exports": Target(exported, read_exports),
    "units before": Target(lambda: packed({"targets": ["_C"], "units": ["_C/x.cu.o"]}), read_units_before, mutate.document),
    "mirrors": Target(
        lambda: [b'[mirrors]\n"https://github.com/nvidia/cutlass" = "repo"\n"git@github.com:a/b.git" = "repo"\n'],
        read_mirrors, mutate.text,
    ),
    "costs": Target(cost_table, read_costs, mutate.text),
    "retry-after": Target(lambda: [b"30", b"Fri, 31 Dec 2100 23:59:59 GMT"][:1], read_retry_after, mutate.text),
    "companions": Target(companion_sets, read_companions, mutate.text),
    "built": Target(built, read_built, mutate.document),
    "board": Target(board, read_board, mutate.document, (ValueError,)),
    "qualified": Target(
        lambda: packed({"schema": 1, "tiers": [{"number": 0, "name": "audit", "result": "passed", "reason": "r"}]}),
        read_qualified, mutate.document, (ValueError,),
    ),
    "snapshot": Target(machines, read_snapshot, mutate.text),
    "manifest": Target(manifests, read_manifest, mutate.document),
    "zip times": Target(small_wheel, read_zip_times),
    "origin": Target(origins, read_origin, mutate.document),
    "copy": Target(copies, read_copy, mutate.text),
    "findings": Target(
        lambda: packed({"checks": [{"name": "a", "ok": True, "seconds": 1.0}, {"name": "b", "ok": None, "reason": "no"}]}),
        read_findings, mutate.document, (ValueError,),
    ),
    "catalogue": Target(catalogues, read_catalogue, mutate.document),
    "tree": Target(trees, read_tree, mutate.text),
    "cargo": Target(lambda: [CARGO.encode()], read_cargo, mutate.text),
    "part": Target(a_part, read_part, mutate.text),
    "ops": Target(lambda: [OPS, CALLS], read_ops, mutate.text),
    "torch": Target(lambda: [b"__version__ = '2.11.0'\ncuda: str = '13.0'\nhip = None\n"], read_torch, mutate.text),
}  # fmt: skip
