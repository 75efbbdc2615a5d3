"""`invoke qualify`: what can be tried without a GPU. The tiers that need one are shown in docs/evidence/."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from wheel_maker import make_wheel, thor_wheel

from build_recipes.build import registrations
from build_recipes.facts import device as devices
from build_recipes.kit import paths
from build_recipes.kit.errors import CouldNotCheck, NotAWheel, UsageError
from build_recipes.kit.paths import Places
from build_recipes.patching import trees as release
from build_recipes.qualify import environment, ops, report, runner, trial
from build_recipes.qualify.generate import attention_backend, memory
from build_recipes.qualify.report import FAILED, NOT_RUN, PASSED, Qualification, Tier
from build_recipes.sources.download import fetch_files


def qualify(*words: str | Path, wheels: Path) -> subprocess.CompletedProcess[str]:
    """The front door, with a build folder of its own."""
    own = str(Path(sys.executable).parent)
    search = [part for part in os.environ["PATH"].split(os.pathsep) if part != own]
    return subprocess.run(
        [sys.executable, "-m", "invoke", "qualify", *map(str, words)],
        cwd=paths.PROJECT, text=True, capture_output=True, check=False,
        env={**os.environ, "PATH": os.pathsep.join(search), "VLLM_ARMORY_BUILD": str(wheels / "build")},
    )  # fmt: skip


def a_trial(folder: Path, python: Path | None = None) -> trial.Trial:
    entry = devices.device("thor")
    return trial.Trial(
        folder / "x.whl", "0.12.0+cu130.thor", "thor", entry, trial.Manifest(), None, python, folder
    )


# -- which tiers, which memory


def test_tiers_are_named_by_number_or_name() -> None:
    assert runner.parse_tiers("") == (0, 1, 2, 3, 4, 5)
    assert runner.parse_tiers("kernels, 0,kernels") == (0, 3)
    with pytest.raises(UsageError, match="no tier 6") as caught:
        runner.parse_tiers("6")
    assert "0 audit, 1 import" in str(caught.value.advice)


def test_memory_is_asked_for_with_care() -> None:
    """A share of 0.90 has ended unified boards; the reason stands in the result."""
    for name, entry in devices.devices().items():
        settings = memory(entry)
        assert 0 < settings["utilization"] <= 0.3, name
        assert ("unified" in settings["why"]) == (entry.memory_kind == "unified"), name


def test_the_attention_backend_is_read_from_the_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert attention_backend(log) == ""
    log.write_text("INFO [cuda.py:411] Using FLASH_ATTN attention backend out of potential backends: ...\n")
    assert attention_backend(log) == "FLASH_ATTN"


# -- ops, read statically

SOURCE = """
import torch
def a(x):
    torch.ops._C.rms_norm(x)
    torch.ops._C_cache_ops.swap_blocks(x)
    torch.ops._moe_C.topk_softmax.default(x)
    torch.ops._rocm_C.wvSplitK(x)
    torch.ops._C_custom_ar.init_custom_qr(x)
    torch.ops._C_custom_ar.all_reduce(x)
    torch.ops.aten.add(x, x)
    if hasattr(torch.ops._C, "maybe"):
        torch.ops._C.maybe(x)
"""


def test_ops_that_are_called_are_told_from_guarded_and_foreign_ones() -> None:
    read = ops.calls([("vllm/a.py", SOURCE), ("vllm/b.py", "torch.ops._C. = 1\n"), ("vllm/c.py", "x = 1\n")])
    assert read.called["_C"] == ("maybe", "rms_norm")
    assert "aten" not in read.called
    kept, passed = ops.wanted(read, ())
    assert kept == {
        "_C": ["rms_norm"],
        "_C_cache_ops": ["swap_blocks"],
        "_C_custom_ar": ["all_reduce"],
        "_moe_C": ["topk_softmax"],
    }
    assert sorted(passed) == ["_C.maybe", "_C_custom_ar.init_custom_qr", "_rocm_C.wvSplitK"]
    kept, _ = ops.wanted(read, {"_C"})
    assert list(kept) == ["_moe_C"]


def test_registered_ops_are_read_from_schema_strings() -> None:
    content = (
        b"\x7fELF\0rms_norm(Tensor! result, Tensor input) -> ()\0swap_blocks\0not an op (x)\0ab(x) -> ()\0"
    )
    assert {"rms_norm", "swap_blocks"} <= ops.registered([content])
    assert "op" not in ops.registered([content])


# -- results


def test_what_could_not_be_tried_never_passed() -> None:
    good, bad, skipped = (
        {"name": "a", "ok": True},
        {"name": "b", "ok": False, "error": 0.5},
        {"name": "c", "ok": None, "reason": "no fp8"},
    )
    assert report.judge([good, skipped]) == (PASSED, "1 check, 1 does not apply here")
    assert report.judge([skipped]) == (NOT_RUN, "no fp8")
    assert report.judge([])[0] == NOT_RUN
    assert report.judge([good, bad, skipped]) == (FAILED, "1 of 2 checks failed; b: error 0.5")


def test_an_earlier_run_of_the_same_wheel_is_kept(tmp_path: Path) -> None:
    wheel = tmp_path / "vllm-1-py3-none-any.whl"
    first = Qualification(
        wheel.name, "aa", {}, (Tier(0, "audit", PASSED, "x"), Tier(1, "import", FAILED, "y"))
    )
    path = report.keep(wheel, first)
    report.keep(wheel, Qualification(wheel.name, "aa", {}, (Tier(1, "import", PASSED, "z"),)))
    kept = json.loads(path.read_text())["tiers"]
    assert [(tier["number"], tier["result"]) for tier in kept] == [(0, PASSED), (1, PASSED)]
    report.keep(wheel, Qualification(wheel.name, "bb", {}, (Tier(1, "import", PASSED, "z"),)))
    assert [tier["number"] for tier in json.loads(path.read_text())["tiers"]] == [1]


# -- scripts

SCRIPT = """
import os, time
from common import Findings, Skip
found = Findings()
found.check("first", lambda: {"path": os.environ["PATH"], "home": os.getcwd()})
def skip():
    raise Skip("not here")
found.check("second", skip)
found.check("third", lambda: 1 / 0)
if found.options["end"] == "crash":
    os.abort()
if found.options["end"] == "hang":
    time.sleep(60)
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scripts folder with the real `common` and one script."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "common.py").symlink_to(trial.SCRIPTS / "common.py")
    (folder / "try.py").write_text(SCRIPT)
    monkeypatch.setattr(trial, "SCRIPTS", folder)
    return folder


def test_a_script_tells_what_it_found(scripts: Path, tmp_path: Path) -> None:
    facts = trial.run_script(a_trial(tmp_path, Path(sys.executable)), "try", {"end": ""}, 30)
    assert [check["ok"] for check in facts["checks"]] == [True, None, False]
    assert facts["checks"][0]["home"] == str(tmp_path)
    assert facts["checks"][0]["path"].startswith(str(Path(sys.executable).parent))
    assert "ZeroDivisionError" in facts["checks"][2]["reason"]


@pytest.mark.parametrize(
    ("end", "limit", "said"), [("crash", 30, "ended with -6"), ("hang", 2, "ended at its limit of 2 s")]
)
def test_a_script_that_dies_keeps_what_it_had_found(
    scripts: Path, tmp_path: Path, end: str, limit: float, said: str
) -> None:
    facts = trial.run_script(a_trial(tmp_path, Path(sys.executable)), "try", {"end": end}, limit)
    assert len(facts["checks"]) == 4
    assert facts["checks"][3]["ok"] is False and said in facts["checks"][3]["reason"]


# -- the environment


@pytest.fixture
def under(tmp_path: Path) -> Path:
    """A Python with a package named torch, as a board's own Python has one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "base")], check=True)
    python = tmp_path / "base/bin/python3"
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, check=True, text=True, capture_output=True).stdout.strip())
    (site / "torch/lib").mkdir(parents=True)
    (site / "torch/__init__.py").write_text("__version__ = '2.11.0'\n")
    return python


def test_the_wheel_is_tried_over_a_python_that_is_left_as_it_was(under: Path, tmp_path: Path) -> None:
    members = {"vllm/__init__.py": b"import torch\nseen = torch.__version__\n"}
    wheel = make_wheel(tmp_path, members, tag="py3-none-any")
    base = environment.base(str(under))
    before = sorted(path.name for path in base.site.iterdir())
    python = environment.make(base, wheel, [], tmp_path, "aa")
    told = subprocess.run(
        [python, "-c", "import vllm; print(vllm.seen)"], check=True, text=True, capture_output=True
    )
    assert told.stdout == "2.11.0\n"
    assert sorted(path.name for path in base.site.iterdir()) == before
    made = python.stat().st_mtime_ns
    assert environment.make(base, wheel, [], tmp_path, "aa").stat().st_mtime_ns == made


def test_an_environment_that_cannot_be_had_is_said(under: Path, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, {"vllm/__init__.py": b""}, tag="cp38-abi3-manylinux_2_17_s390x")
    with pytest.raises(CouldNotCheck, match="cannot be installed"):
        environment.make(environment.base(str(under)), wheel, [], tmp_path, "aa")
    with pytest.raises(CouldNotCheck, match="no torch"):
        environment.base(sys.executable)
    with pytest.raises(UsageError, match="does not run"):
        environment.base(str(tmp_path / "nowhere"))


# -- through the front door


@pytest.mark.skipif(platform.machine() == "aarch64", reason="the wheel could be tried there")
def test_a_wheel_for_another_machine_is_read_and_nothing_is_said_to_have_run(tmp_path: Path) -> None:
    wheel = thor_wheel(tmp_path, version="0.12.0+cu130.thor", tag="cp38-abi3-manylinux_2_39_aarch64")
    done = qualify(wheel, "--json", wheels=tmp_path)
    tiers = {tier["name"]: tier for tier in json.loads(done.stdout)["tiers"]}
    assert {
        name: tiers[name]["result"] for name in ("platform", "kernels", "generate", "omni")
    } == dict.fromkeys(("platform", "kernels", "generate", "omni"), NOT_RUN)
    assert tiers["import"]["result"] != PASSED
    assert "aarch64" in tiers["omni"]["reason"]
    assert json.loads(report.path_of(wheel).read_text())["sha256"] == json.loads(done.stdout)["sha256"]
    asked = qualify(wheel, "--tiers", "5", wheels=tmp_path)
    assert asked.returncode == CouldNotCheck.exit_code
    assert "not run: 5 omni (the wheel is for aarch64" in " ".join(asked.stderr.split())


def test_bad_input_is_said_plainly(tmp_path: Path) -> None:
    other = make_wheel(tmp_path, {"numpy/__init__.py": b""}, project="numpy", tag="py3-none-any")
    plain = make_wheel(tmp_path, {"vllm/__init__.py": b""}, tag="py3-none-any")
    cases: list[tuple[list[str | Path], str]] = [
        ([other], "is a wheel of numpy"),
        ([tmp_path / "gone.whl"], "gone.whl"),
        ([plain, "--tiers", "9"], "there is no tier 9"),
        ([plain, "--device", "toaster"], "toaster"),
    ]
    for words, said in cases:
        done = qualify(*words, wheels=tmp_path)
        assert done.returncode not in (0, 1), done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_wheel_of_another_project_is_an_error_of_its_own(tmp_path: Path) -> None:
    other = make_wheel(tmp_path, {"numpy/__init__.py": b""}, project="numpy", tag="py3-none-any")
    with pytest.raises(NotAWheel):
        runner.prepare(other, python="", extra="", device="thor")


def test_a_release_says_itself_which_ops_are_of_another_platform() -> None:
    """The official wheel calls CPU's, XPU's and ROCm's ops, too; its own source distribution tells them apart."""
    places = Places.from_environment()
    pin = release.pin("0.26.0")
    declared = registrations.of_sdist(fetch_files([pin], places.downloads)[pin.filename])
    called = {
        "_C": ("rms_norm", "cpu_attn", "eagle_step_slot_mapping_metadata_kernel_impl"),
        "_rocm_C": ("LLMM1",),
    }
    kept, passed = ops.wanted(ops.OpCalls(called, {}), (), declared)
    assert kept == {"_C": ["rms_norm"]}
    assert "_rocm_C.LLMM1" in passed
