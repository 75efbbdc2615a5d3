"""Logs after public reports: the right cause or the right line and tool, whatever wraps the log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from build_recipes.diagnosis.diagnose import Diagnosis, diagnose
from build_recipes.kit.data import Model, load_toml

PROJECT = Path(__file__).parent.parent
LOGS = Path(__file__).parent / "logs"


class Case(Model, frozen=True):
    """What is right of a log."""

    line: str
    tools: list[str]
    ids: list[str]


CASES = load_toml(LOGS / "cases/cases.toml", dict[str, Case])
REPORTS = {
    "01": "qutlass-torch-headers", "03": "torchcodec-ffmpeg", "05": "flashinfer-versions", "07": "kernel-guard-sm120",
    "09": "patch-of-another-tree", "11": "fa3-fwd-no-aarch64", "13": "cute-dsl-arch", "15": "cuda-home-wrong",
    "17": "library-not-found", "19": "glibc-newer-than-cuda", "21": "deepgemm-illegal-address", "23": "deepgemm-recipe",
    "25": "ptx-unsupported-toolchain", "27": "rpc-timeout", "29": "unified-memory-taken", "31": "ray-placement",
    "33": "nccl-no-route", "35": "docker-no-nvidia-runtime", "37": "flash-attention-4-arch",
    "39": "illegal-instruction-gpu",
    "41": "flashinfer-cache-rights", "43": "omni-signature", "45": "wheel-url-gone", "47": "jetson-device-rights",
    "49": "triton-shared-memory", "51": "python-not-in-range", "53": "undefined-symbol-cuda", "55": "",
    "57": "ccache-recursive", "59": "oom-killed-line", "61": "cute-dsl-arch",
}  # fmt: skip
BEFORE = [
    "-- The CXX compiler identification is GNU 13.3.0", "Successfully installed numpy-2.2.6 torch-2.11.0",
    "(APIServer pid=311) INFO 08-27 09:14:20 [model.py:1620] Using max model len 32768",
    "WARNING 08-27 09:14:21 [envs.py:12] something is deprecated and will raise an error in v0.40",
    "Building wheel for error_utils (pyproject.toml): finished with status 'done'",
]  # fmt: skip
AFTER = [
    "(APIServer pid=311) INFO 08-27 09:15:20 [launcher.py:1] shutting down", "Cleaning up orphan processes",
    "$ date", "Thu Nov 26 10:00:00 UTC 2026", "Done in 3.2s.",
]  # fmt: skip
PREFIXES = [
    "",
    "2026-02-01T10:00:00.1234567Z ",
    "vllm-1  | ",
    "#31 1043.2 ",
    "Nov 26 08:10:11 host app[12]: ",
    "      ",
]


def wrapped(log: list[str]) -> list[tuple[list[str], int]]:
    """The log behind each prefix, alone and among healthy lines, and how many lines stand before it."""
    found = [([prefix + line for line in log], 0) for prefix in PREFIXES]
    found += [([prefix + line for line in (*BEFORE, *log, *AFTER)], len(BEFORE)) for prefix in PREFIXES[:3]]
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_right_cause_or_the_right_line_and_tool(name: str) -> None:
    case = CASES[name]
    for lines, _ in wrapped((LOGS / f"cases/{name}.log").read_text().splitlines()):
        found = diagnose(lines)
        assert found.failed and found.report is not None
        if found.primary:
            assert found.primary.id in case.ids, "a wrong cause is worse than none"
        else:
            assert case.line in lines[found.report.line - 1]
            assert found.report.tool in case.tools


@pytest.mark.parametrize("path", sorted((LOGS / "reports").glob("*.log")), ids=lambda path: path.stem)
def test_the_reports_causes(path: Path) -> None:
    expected = REPORTS[path.name[:2]]
    for lines, _ in wrapped(path.read_text().splitlines()):
        found = diagnose(lines)
        assert (found.primary.id if found.primary else "") == expected
        assert found.failed is bool(expected)


@pytest.mark.parametrize("path", sorted((LOGS / "healthy").glob("*.log")), ids=lambda path: path.stem)
def test_words_of_errors_in_a_log_of_success_are_none(path: Path) -> None:
    assert diagnose(path.read_text().splitlines()).state == "healthy"


def report(name: str) -> Diagnosis:
    return diagnose((LOGS / f"reports/{name}.log").read_text().splitlines())


@pytest.mark.parametrize(
    ("name", "tool", "package", "line"),
    [
        ("01-qutlass-torch213", "c++", "qutlass", 13), ("03-orin-torchcodec-ffmpeg", "python", "torchcodec", 9),
        ("13-cutedsl-sm121a", "cute-dsl", "nvidia-cutlass-dsl", 5), ("21-gh200-deepgemm-700", "cuda", "DeepGEMM", 3),
        ("37-fa4-only-sm10-11", "python", "vllm-flash-attn", 3), ("43-omni-postinit", "python", "vllm-omni", 5),
        ("19-glibc243-rsqrt", "nvcc", "", 8), ("61-long-engine-trace", "cute-dsl", "nvidia-cutlass-dsl", 34),
    ],
)  # fmt: skip
def test_who_said_it_and_which_package_is_at_fault(name: str, tool: str, package: str, line: int) -> None:
    found = report(name).report
    assert found is not None
    assert (found.tool, found.package, found.line) == (tool, package, line)
    assert found.context and found.look and found.send


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("ok-vllm-warns.log", 0),
        ("reports/13-cutedsl-sm121a.log", 65),
        ("unknown-cpp.log", 66),
        ("cut.log", 68),
    ],
)
def test_exit_codes(tmp_path: Path, path: str, code: int) -> None:
    log = LOGS / path
    if path == "cut.log":
        log = tmp_path / path
        log.write_text("[3/300] Building CUDA object a.cu.o\n")
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "diagnose", str(log)], capture_output=True, cwd=PROJECT, check=False
    )
    assert done.returncode == code, done.stderr
    assert b"Traceback (most" not in done.stderr or path != "cut.log"


def test_signs_that_have_nothing_of_their_own_are_told_by_their_family() -> None:
    found = diagnose(["Traceback (most recent call last):",
                      '  File "/x/site-packages/foo/bar.py", line 3, in f', "    raise Odd",
                      "foo.errors.OddThing: it is odd"])  # fmt: skip
    assert found.unknown and found.report is not None
    assert (found.report.tool, found.report.package, found.report.line) == ("python", "foo", 4)


def test_of_a_chain_the_first_is_the_one_and_wrappers_are_seen_through() -> None:
    lines = [
        "Traceback (most recent call last):", '  File "/x/site-packages/a/b.py", line 1, in f', "    g()",
        "a.Inner: the reason", "", "The above exception was the direct cause of the following exception:", "",
        "Traceback (most recent call last):", '  File "/x/site-packages/c/d.py", line 1, in f', "    g()",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ]  # fmt: skip
    found = diagnose(lines)
    assert found.report is not None and found.report.text == "a.Inner: the reason"


def test_an_exception_group_is_seen_through() -> None:
    lines = [
        "  + Exception Group Traceback (most recent call last):",
        '  |   File "/x/site-packages/anyio/a.py", line 3, in f',
        "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)",
        "  +-+---------------- 1 ----------------",
        "    | Traceback (most recent call last):", '    |   File "/x/site-packages/vllm/b.py", line 3, in g',
        "    | ValueError: the real one", "    +------------------------------------",
    ]  # fmt: skip
    found = diagnose(lines).report
    assert found is not None and (found.line, found.tool, found.package) == (7, "python", "vllm")


def test_a_start_that_waits_for_ever_is_not_called_healthy() -> None:
    waits = "INFO 11-26 08:10:09 [utils.py:1] Waiting for 1 local, 0 remote core engine proc(s) to start."
    assert diagnose([waits, waits]).state == "unfinished"
