"""Readers of machine code, archives, documents, sources and logs, and of what a crash can leave of a build."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import msgspec
import mutate
import nightly_history
import zstandard
from target import Target, put
from wheel_maker import DATA, make_wheel, thor_wheel

from build_recipes.audit import closure, scan
from build_recipes.build import rebuild
from build_recipes.build.stages import published, record
from build_recipes.build.units import costs, estimate, outputs
from build_recipes.diagnosis.diagnose import diagnose_file
from build_recipes.formats import abi, cubin, fatbin
from build_recipes.formats.archive import entries, unpack_sdist
from build_recipes.formats.elf import Elf
from build_recipes.formats.inflate import Content
from build_recipes.formats.wheel import Wheel
from build_recipes.kit import evidence, http
from build_recipes.kit.errors import ArmoryError
from build_recipes.kit.paths import LOCKS, PROJECT, Places
from build_recipes.nightly import config, extract, feed, steps
from build_recipes.nightly.store import Store as Nights
from build_recipes.patching import journal
from build_recipes.qualify import report
from build_recipes.sources import bundle, modules, registry
from build_recipes.sources.cmake.scan import reader
from build_recipes.sources.cmake.trees import Scan
from build_recipes.sources.lockfile import load_lock
from build_recipes.specialise import shrink
from build_recipes.verify.read import archive as verified
from build_recipes.verify.read import releases, tree
from build_recipes.verify.read.store import Store
from build_recipes.wheelhouse import provenance, rewrite, serve
from build_recipes.wheelhouse.index import write_index

# -- machine code --------------------------------------------------------------------------------


def read_elf(data: bytes, _: Path | None = None) -> bool:
    """Read all of an ELF file; whether it was taken."""
    try:
        elf = Elf(data, "fuzzed")
        names = elf.symbols.defined | set(elf.symbols.undefined)
        for name in sorted(names)[:50]:
            elf.exports(name)
            closure.readable(name)
        abi.required([elf])
        closure.close({"fuzzed": elf}, [])
        scan.registered_ops(elf)
        for entry in fatbin.read(elf):
            if entry.size <= 1 << 24:
                payload = entry.decode()
                if entry.kind == "sass":
                    list(cubin.kernels(Elf(payload, "cubin")))
    except ArmoryError:
        return False
    return read_module(data)


def read_module(data: bytes) -> bool:
    """Scan a module as the audit does: damage is told, never raised."""
    return not scan.read_module("vllm/_C.abi3.so", Content(memoryview(data), b""), len(data)).broken


def modules_of_seed() -> list[bytes]:
    return [(DATA / name).read_bytes() for name in ("thor.so", "old.so", "size.o", "speed.o", "rdc.o")]


# -- archives ------------------------------------------------------------------------------------

WHEEL = "vllm-0.12.0-cp38-abi3-manylinux_2_31_aarch64.whl"


def _wheels(members: dict[str, bytes]) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [make_wheel(Path(folder), members).read_bytes()]


def small_wheel() -> list[bytes]:
    return _wheels({"vllm/__init__.py": b"x = 1\n", "vllm/a/b.py": b"y = 2\n" * 30})


def audited_wheel() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [thor_wheel(Path(folder)).read_bytes()]


def inside(chance: random.Random, seed: bytes) -> bytes:
    """A wheel one of whose members is changed, packed well; or a zip that is damaged."""
    if chance.randrange(2):
        return mutate.blind(chance, seed)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed)) as source, zipfile.ZipFile(out, "w") as target:
        names = source.namelist()
        chosen = chance.choice(names)
        for name in names:
            data = source.read(name)
            if name == chosen:
                data = (mutate.text if not name.endswith(".so") else mutate.blind)(chance, data)
                if chance.randrange(8) == 0:
                    name = (
                        mutate.text(chance, name.encode()).decode("utf-8", "replace").replace("\0", "")[:3000]
                        or "x"
                    )
            target.writestr(name, data)
    return out.getvalue()


def read_wheel(data: bytes, folder: Path) -> bool:
    """Open and scan a wheel, and what a rebuild asks of it."""
    place = put(data, folder, WHEEL)
    with Wheel(place) as wheel:
        scan.scan(wheel)
        wheel.file_tags()
        wheel.record()
        assert wheel.requires is not None
    return True


def rewrite_wheel(data: bytes, folder: Path) -> bool:
    (folder / "to").mkdir()
    rewrite.rewrite(put(data, folder, WHEEL), folder / "to", rewrite.Edits(version="0.12.0+x", drop=()))
    return True


def rewrite_module(data: bytes) -> str:
    """Rewrite a module with the first image of each unit: what became of it.

    Refused, left as it is, or rewritten so that the comparison with the source holds.
    """
    try:
        elf = Elf(data, "fuzzed")
        layout = shrink.layout(elf)
        if layout is None:
            return "no device code"
        entries = [[one.raw for one in row.container.entries[:1]] for row in layout.wrappers]
        stream = io.BytesIO()
        shrink.write(layout, [fatbin.packed(row) for row in entries], stream)
        shrink.check(elf, Elf(stream.getvalue(), "written"), entries)
    except ArmoryError:
        return "refused"
    except shrink.Fixed:
        return "left as it is"
    return "rewritten"


def index_wheel(data: bytes, folder: Path) -> bool:
    """Write an index of one wheel: nothing lands outside, and it names what is there."""
    (folder / "wheels").mkdir()
    put(data, folder / "wheels", WHEEL)
    write_index(folder / "wheels")
    assert [path.name for path in folder.iterdir()] == ["wheels"]
    return True


def tar_of(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, target in (
            ("vllm-1/link", "vllm/a.py"),
            ("vllm-1/vllm/up", "../link"),
            ("vllm-1/" + "n" * 120, "link"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    return out.getvalue()


SOURCES = {
    "vllm-1/PKG-INFO": b"Metadata-Version: 2.1\nName: vllm\nVersion: 1\n",
    "vllm-1/vllm/__init__.py": b"__version__ = '1'\n",
    "vllm-1/vllm/a.py": b"import os\nclass A:\n    def f(self, x: int = 3) -> None: ...\n",
}


def packed_or_not(chance: random.Random, seed: bytes) -> bytes:
    """A plain tar that is changed and packed, or a packed one that is changed."""
    pack = chance.choice(
        (lambda data: gzip.compress(data, 1), lambda data: zstandard.compress(data, 1), bytes)
    )
    return mutate.blind(chance, pack(seed)) if chance.randrange(4) == 0 else pack(mutate.blind(chance, seed))


def read_archive(data: bytes, folder: Path) -> bool:
    for entry in entries(put(data, folder, "a")):
        assert not entry.path.is_absolute() and ".." not in entry.path.parts
        if entry.kind == "file":
            entry.read()
    return True


def unpack_source(data: bytes, folder: Path) -> bool:
    """Unpack: nothing lands outside of the tree, no link leads out of it, and nothing is left of what failed."""
    path = put(data, folder, "a.tar")
    try:
        root = unpack_sdist(path, folder / "tree").resolve()
        for found in root.rglob("*"):
            assert found.resolve().is_relative_to(root)
    finally:
        assert {entry.name for entry in folder.iterdir()} <= {"a.tar", "tree"}
    return True


def verify_archive(data: bytes, folder: Path) -> bool:
    name = "vllm-1.whl" if data[:2] == b"PK" else "vllm-1.tar.gz"
    verified.read(put(data, folder, name), "vllm")
    return True


def inside_or_tar(chance: random.Random, seed: bytes) -> bytes:
    """A changed wheel, or a changed source distribution."""
    return inside(chance, seed) if seed[:2] == b"PK" else packed_or_not(chance, gzip.decompress(seed))


def bundles() -> list[bytes]:
    body = b"a wheel\n"
    import hashlib

    from build_recipes.sources.lockfile import digest_of, lock_text

    lock = load_lock("v0.12.0")
    document = {"tag": lock.tag, "digest": digest_of(lock), "repositories": [], "files": [], "missing": {}}
    members = {
        "bundle.json": json.dumps(document).encode(), "lock.toml": lock_text(lock).encode(),
        f"downloads/{hashlib.sha256(body).hexdigest()}/a.whl": body,
    }  # fmt: skip
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return [out.getvalue()]


def read_bundle(data: bytes, folder: Path) -> bool:
    places = Places(folder / "cache", folder / "build", folder / "wheels")
    path = put(data if data[:4] == b"\x28\xb5\x2f\xfd" else zstandard.compress(data, 1), folder, "b.tar.zst")
    bundle.unpack(path, places)
    assert {entry.name for entry in folder.iterdir()} <= {"b.tar.zst", "cache"}
    return True


# -- documents -----------------------------------------------------------------------------------


def read_statement(data: bytes, _: Path) -> bool:
    provenance.read(data)
    return True


def rebuilt(data: bytes, folder: Path) -> bool:
    """A wheel that says how it was built: its request is read and its plan compared."""
    name = provenance.MEMBER.replace("{dist_info}", "vllm-0.12.0.dist-info")
    wheel = make_wheel(folder, {name: data})
    rebuild.compare(wheel, Places(folder / "cache", folder / "build", folder / "wheels"))
    return True


def statements() -> list[bytes]:
    values = {
        "plan": '{"device": "thor", "tag": "v0.12.0"}',
        "request": '{"tag": "v0.12.0", "only": ["_C"]}',
        "lock": "x",
    }
    rows = [{"name": f"{provenance._PREFIX}{key}", "value": value} for key, value in values.items()]
    return [json.dumps({"metadata": {"component": {"properties": rows}}}).encode()]


# -- what a build leaves -------------------------------------------------------------------------


def unit_rows() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "units.jsonl"
        for number in range(3):
            row = {
                "unit": f"_C/{number}.cu.o",
                "code": number % 2,
                "cpu_s": 1.5,
                "rss_kib": 9000,
                "cached": False,
            }
            costs.add_line(path, row | {"output": f"x{number}.o", "size": 3, "sha256": "0" * 64})
        old = json.dumps(
            {"unit": "_C/x.cu.o", "code": 0, "cpu_s": 1.0, "rss_kib": 1, "cached": True}
        ).encode()
        return [path.read_bytes(), path.read_bytes() + old + b"\n", old + b"\n"]


def read_units(data: bytes, folder: Path) -> bool:
    path = put(data, folder, "units.jsonl")
    costs.learned(path)
    outputs.written(path)
    (folder / estimate.NAME).write_text('{"units": 3}')
    estimate.say_how_it_went(estimate.settle(folder, ["_C/0.cu.o"]))
    costs.add_line(path, {"unit": "a", "code": 0, "cpu_s": 1, "rss_kib": 1})
    assert list(costs.read_journal(path))[-1]["unit"] == "a"
    return True


def read_estimate(data: bytes, folder: Path) -> bool:
    put(data, folder, estimate.NAME)
    estimate.say_how_it_went(estimate.settle(folder, ["_C/0.cu.o"]))
    return True


def stage(data: bytes, folder: Path) -> bool:
    """A stage is believed when its record is whole, else made again; either way it ends with its outputs."""
    (folder / "stages").mkdir()
    record.place(folder, "x").write_bytes(data)
    (folder / "made").write_bytes(b"made")
    done = record.once(folder, "x", "inputs", lambda: {"made": str(folder / "made")})
    assert done.outputs in ({"made": str(folder / "made")}, {"made": "x"})
    return done.outputs == {"made": "x"}


def stages() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        record.once(Path(folder), "x", "inputs", lambda: {"made": "x"})
        return [record.place(Path(folder), "x").read_bytes()]


def file_lists() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a").write_bytes(b"a")
        evidence.keep(Path(folder), Path(folder) / "list.json", ["a"])
        return [(Path(folder) / "list.json").read_bytes()]


def read_files(data: bytes, folder: Path) -> bool:
    (folder / "a").write_bytes(b"a")
    found = evidence.damaged(folder, put(data, folder, "list.json"))
    evidence.keep(folder, folder / "list.json", ["a"])
    assert evidence.damaged(folder, folder / "list.json") == []
    return found == []


def published_manifests() -> list[bytes]:
    facts = {
        "schema": 2,
        "wheel": {"name": WHEEL, "size": 3, "sha256": "0" * 64},
        "plan": {"fingerprint": "f"},
    }
    return [json.dumps(published.sealed(facts)).encode(), json.dumps(facts | {"schema": 1}).encode()]


def read_published(data: bytes, folder: Path) -> bool:
    put(data, folder, WHEEL.replace(".whl", published.MANIFEST))
    (folder / WHEEL).write_bytes(b"xxx")
    found = [published.whole(wheel, facts) for _, wheel, facts in published.manifests(folder)]
    return bool(found)


def read_index(data: bytes, folder: Path) -> bool:
    """Is a wheel listed, and what would be served?"""
    (folder / "simple/vllm").mkdir(parents=True)
    (folder / WHEEL).write_bytes(b"xxx")
    put(data, folder, "simple/vllm/index.json")
    put(b"<html></html>", folder, "simple/vllm/index.html")
    put(b'{"projects": [{"name": "vllm"}]}', folder, "simple/index.json")
    published.indexed(folder / WHEEL, "0" * 64)
    return f"{WHEEL}.metadata" in serve._listed(folder)


def index_documents() -> list[bytes]:
    row = {"filename": WHEEL, "hashes": {"sha256": "0" * 64}, "core-metadata": {"sha256": "0" * 64}}
    return [json.dumps({"name": "vllm", "files": [row]}).encode()]


def read_steps(data: bytes, folder: Path) -> bool:
    """What a step of the night printed."""
    found: dict[str, object] = {}
    for step in ("build", "audit", "omni", "patches", "qualify"):
        found |= extract.extract(step, steps._document(put(data, folder, "out.json")))
    return bool(found)


def step_documents() -> list[bytes]:
    return [
        b'{"devices": {"thor": {"verdict": "ready", "reasons": ["x"]}}, "omni": "1", "verdict": "ok", "breaks": [{"name": "x"}],'
        b' "cells": [{"patch": "a", "state": "gap"}], "tiers": [{"name": "a", "result": "passed"}]}'
    ]


def keep_report(data: bytes, folder: Path) -> bool:
    """A qualification beside an older one."""
    report.path_of(folder / WHEEL).write_bytes(data)
    report.keep(
        folder / WHEEL, report.Qualification(WHEEL, "0" * 64, {}, (report.Tier(1, "a", "passed", "", 1.0),))
    )
    return True


def locks() -> list[bytes]:
    return [(LOCKS / "v0.12.0.toml").read_bytes()]


def read_lock(data: bytes, folder: Path) -> bool:
    put(data, folder, "v0.12.0.toml")
    load_lock("v0.12.0", folder)
    return True


def journals() -> list[bytes]:
    made = journal.Journal(
        status="applied", digest="d",
        patches=[journal.Entry(id="a", variant="b", sha256="0" * 64, files=["x.py"])],
        changes=[journal.Change(path="x.py", before="x", after="0" * 64, earlier=None)],
    )  # fmt: skip
    return [msgspec.json.encode(made)]


def read_journal(data: bytes, folder: Path) -> bool:
    (folder / "tree").mkdir()
    (folder / "tree/x.py").write_text("x")
    journal.place(folder / "tree").write_bytes(data)
    found = journal.read(folder / "tree")
    if found is not None:
        journal.intact(folder / "tree", found)
        journal.originals(folder / "tree", found)
    return True


def feeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        events = nightly_history.write(Path(folder) / "night.sqlite")
    return [b"".join(event.line() + b"\n" for event in part) for part in (events[:6], events[-9:])]


def read_feed(data: bytes, folder: Path) -> bool:
    """Read a feed, merge it, draw the page."""
    from build_recipes.nightly.page.site import write_site

    found = feed.read(put(data, folder, "feed.jsonl"))
    with Nights(folder / "night.sqlite") as store:
        store.merge(found.events)
        write_site("t", [event for _, event in store.events()], folder / "page")
    return not found.damaged


def read_nights(data: bytes, folder: Path) -> bool:
    with Nights(put(data, folder, "night.sqlite")) as store:
        list(store.events())
    return True


def nights() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        with Nights(Path(folder) / "night.sqlite") as store:
            store.record("started", "a@1", "", {"job": "a"})
        return [(Path(folder) / "night.sqlite").read_bytes()]


def read_config(data: bytes, folder: Path) -> bool:
    config.load(put(data, folder, "n.toml"))
    return True


JSON = "application/vnd.pypi.simple.v1+json"


def pages() -> list[bytes]:
    row = {
        "filename": "x-1-py3-none-any.whl",
        "url": "x.whl",
        "hashes": {"sha256": "0" * 64},
        "size": 1,
        "requires-python": ">=3",
    }
    rows = [row, {**row, "filename": "x-1.tar.gz", "yanked": "bad", "upload-time": "2026-01-01T00:00:00Z"}]
    return [
        json.dumps({"meta": {"api-version": "1.1"}, "name": "x", "versions": ["1"], "files": rows}).encode()
    ]


def read_page(data: bytes, _: Path) -> bool:
    kind = JSON if data[:1] in b"{[" else "text/html"
    found = registry.listed(
        http.Answer("https://example.org/simple/x/", 200, "OK", {"Content-Type": kind}, data), "x"
    )
    for package in found:
        assert package.filename is not None
    return True


def html_pages() -> list[bytes]:
    return [
        b'<!DOCTYPE html><html><body><a href="x-1-py3-none-any.whl#sha256=00" data-requires-python="&gt;=3">x</a></body></html>'
    ]


def read_listing(data: bytes, folder: Path) -> bool:
    from build_recipes.kit.data import load_json

    load_json(put(data, folder, "l.json"), releases.Listing).get("0.12.0")
    return True


# -- sources and logs ----------------------------------------------------------------------------

CMAKE = b"""cmake_minimum_required(VERSION 3.26)
set(A "x;y") # comment
if(NOT A STREQUAL "z" AND VLLM_GPU_LANG STREQUAL "CUDA")
  FetchContent_Declare(cutlass GIT_REPOSITORY https://github.com/nvidia/cutlass.git GIT_TAG v4.2.1 GIT_SHALLOW TRUE)
elseif(B OR (C AND D))
  include(cmake/x.cmake)
endif()
foreach(ARCH ${A})
  list(APPEND E "${ARCH}")
endforeach()
FetchContent_MakeAvailable(cutlass)
define_gpu_extension_target(_C DESTINATION vllm LANGUAGE CUDA SOURCES ${E} [[raw]] WITH_SOABI)
"""
SETUP = b"""import os
from setuptools import setup
class CMakeExtension: ...
ext_modules = []
if _is_cuda():
    ext_modules.append(CMakeExtension(name="vllm._C", optional=True))
if os.path.exists("x"):
    rust = [RustExtension("vllm.rust", path="rust/Cargo.toml", binding=Binding.Exec, optional=True)]
setup(ext_modules=ext_modules)
"""


def read_cmake(data: bytes, folder: Path) -> bool:
    put(data, folder, "CMakeLists.txt")
    Scan().project(reader(folder))
    return True


def read_makeup(data: bytes, folder: Path) -> bool:
    put(CMAKE + b"add_library(_C MODULE x.cu)\n", folder, "CMakeLists.txt")
    put(data, folder, "setup.py")
    modules.makeup(folder)
    return True


def python() -> list[bytes]:
    here = PROJECT / "build_recipes/verify/read"
    return [(here / name).read_bytes()[:6000] for name in ("archive.py", "lazy.py", "scope.py")]


def read_python(data: bytes, _: Path) -> bool:
    tree.summarise(data, "vllm_omni", whole=False)
    tree.summarise(data, "vllm_omni", whole=True)
    return True


@cache
def _logs() -> list[bytes]:
    return [
        b"[1/2] Building CUDA object x.cu.o\nFAILED: [code=1] x.cu.o\nnvcc fatal   : Unsupported gpu architecture 'compute_110'\n"
        b"ninja: build stopped: subcommand failed.\n" + b"ordinary line %d\n" * 20
    ]


def read_log(data: bytes, folder: Path) -> bool:
    return bool(diagnose_file(put(data, folder, "a.log")).failed)


def read_store(data: bytes, folder: Path) -> bool:
    store = Store(put(data, folder, "store.sqlite"))
    store.put_many("x", {b"k": b"v"})
    store.get("x", b"k")
    return True


def stores() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "s.sqlite")
        store.put_many("x", {b"k": b"v"})
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return [(Path(folder) / "s.sqlite").read_bytes()]


def shared_objects() -> list[bytes]:
    return [
        path.read_bytes()
        for path in sorted((Path(__file__).resolve().parents[1] / "data/specialise").glob("*.so"))
    ]


TARGETS: dict[str, Target] = {
    "elf": Target(modules_of_seed, read_elf),
    "module": Target(shared_objects, lambda data, _: rewrite_module(data) != "refused"),
    "wheel": Target(audited_wheel, read_wheel, inside),
    "rewrite": Target(small_wheel, rewrite_wheel, inside),
    "index": Target(small_wheel, index_wheel, inside),
    "zip": Target(small_wheel, read_archive),
    "tar": Target(lambda: [tar_of(SOURCES)], read_archive, packed_or_not),
    "unpack": Target(lambda: [tar_of(SOURCES)], unpack_source, packed_or_not),
    "verify": Target(
        lambda: [*small_wheel(), gzip.compress(tar_of(SOURCES), 1)], verify_archive, inside_or_tar
    ),
    "bundle": Target(bundles, read_bundle),
    "statement": Target(statements, read_statement, mutate.document, (ArmoryError, ValueError)),
    "rebuild": Target(statements, rebuilt, mutate.document),
    "units": Target(unit_rows, read_units, mutate.lines),
    "estimate": Target(lambda: [b'{"units": 3, "cpu_s": 5.0}'], read_estimate, mutate.document),
    "stage": Target(stages, stage, mutate.document),
    "files": Target(file_lists, read_files, mutate.document),
    "published": Target(published_manifests, read_published, mutate.document),
    "listed": Target(index_documents, read_index, mutate.document),
    "steps": Target(step_documents, read_steps, mutate.document),
    "report": Target(
        lambda: [
            b'{"schema": 1, "sha256": "%s", "tiers": [{"number": 2, "name": "b", "result": "passed", "reason": ""}]}'
            % (b"0" * 64)
        ],
        keep_report,
        mutate.document,
    ),
    "lock": Target(locks, read_lock, mutate.text),
    "journal": Target(journals, read_journal, mutate.document),
    "feed": Target(feeds, read_feed, mutate.lines),
    "nights": Target(nights, read_nights),
    "nightly": Target(
        lambda: [(PROJECT / "build_recipes/nightly/smoke.toml").read_bytes()], read_config, mutate.text
    ),
    "page": Target(pages, read_page, mutate.document),
    "html page": Target(html_pages, read_page, mutate.text),
    "listing": Target(
        lambda: [b'{"project": "vllm", "read": 1.0, "releases": []}'], read_listing, mutate.document
    ),
    "cmake": Target(lambda: [CMAKE], read_cmake, mutate.text),
    "setup.py": Target(lambda: [SETUP], read_makeup, mutate.text),
    "python": Target(python, read_python, mutate.text),
    "log": Target(_logs, read_log, mutate.text),
    "store": Target(stores, read_store),
}
