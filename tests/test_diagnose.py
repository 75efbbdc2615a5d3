"""Signatures as data, and what a diagnosis makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from build_recipes.diagnosis.diagnose import BLOCK, Diagnosis, diagnose, diagnose_file
from build_recipes.diagnosis.signatures import ORDINARY, Rule, known, load
from build_recipes.kit.errors import BadData, CouldNotCheck

PROJECT = Path(__file__).parent.parent
LOGS = Path(__file__).parent / "logs"
ENTRY = """[[failure]]
id = "x"
phase = "run"
cause = "c"
fix = "f"
sources = []
sample = "s"
"""
STOPPED = "ninja: build stopped: subcommand failed."


def ids(diagnosis: Diagnosis) -> list[str]:
    return [found.id for found in diagnosis.findings]


def test_there_are_sixty_and_each_says_why_what_to_do_and_where_from() -> None:
    causes = [rule.signature for rule in known()]
    assert len(causes) >= 60
    for signature in causes:
        assert len(signature.cause) > 30, signature.id
        assert len(signature.fix) > 10, signature.id
        assert signature.sources, signature.id


@pytest.mark.parametrize("rule", known(), ids=lambda rule: rule.signature.id)
def test_a_sample_is_told_by_its_own_signature(rule: Rule) -> None:
    signature = rule.signature
    sample = signature.sample.split("\n")
    lines = ["-- Configuring done (17.1s)", *sample, *["working"] * 40]
    if signature.kind == "hint":
        assert not diagnose([*lines, "Successfully installed six-1.17.0"]).failed, "it may have been survived"
        lines.append(STOPPED)
    found = diagnose(lines)
    assert found.primary is not None
    assert (found.primary.id, found.primary.line) == (signature.id, 1 + len(sample))
    assert [each.primary for each in found.findings] == [True] + [False] * (len(found.findings) - 1)


@pytest.mark.parametrize("rule", known(), ids=lambda rule: rule.signature.id)
def test_a_sample_is_found_in_colours_behind_a_prefix_and_after_a_progress_bar(rule: Rule) -> None:
    signature = rule.signature
    for text in (
        "\x1b[01;31m\x1b[K{}\x1b[m\x1b[K",
        "#12 345.6 {}\r",
        " 10%|#    | 1/10\r{}",
        "(EngineCore_DP0 pid=406) ERROR 01-30 13:26:29 [core.py:946] {}",
        "2026-11-26T08:10:11.1234567Z {}",
        "Nov 26 08:10:11 spark-1 vllm[812]: {}",
        "vllm-1  | {}",
    ):
        lines = [text.format(line) for line in signature.sample.split("\n")]
        assert signature.id in ids(diagnose([*lines, STOPPED])), text


@pytest.mark.parametrize("path", [*sorted(LOGS.glob("ok-*.log")), ORDINARY], ids=lambda path: path.name)
def test_a_log_of_success_gives_no_finding(path: Path) -> None:
    found = diagnose_file(path)
    assert not found.findings and not found.unknown
    assert found.state == "healthy" or path == ORDINARY
    assert found.lines == path.read_bytes().count(b"\n")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conflict", ["resolution-impossible"]),
        ("fetchcontent", ["host-not-resolved", "fetchcontent"]),
        ("hash", ["hash-mismatch"]),
        ("isolated", ["torch-missing-in-build"]),
        ("nomatch", ["no-matching-distribution"]),
        ("scm", ["scm-lookup"]),
        ("vllm-no-cutlass", ["given-source-missing"]),
        ("vllm-no-torch", ["torch-missing-in-build", "torch-cmake-missing"]),
    ],
)
def test_real_logs_of_failures(name: str, expected: list[str]) -> None:
    assert ids(diagnose_file(LOGS / f"{name}.log")) == expected


def test_an_unknown_failure_gives_the_unit_and_its_last_lines() -> None:
    found = diagnose_file(LOGS / "unknown-cpp.log")
    assert found.unknown and not found.findings
    assert found.unit == "CMakeFiles/y.dir/y.cpp.o"
    assert any("undeclared_thing" in line for line in found.tail)
    assert not any("x.cpp" in line or "Configuring" in line for line in found.tail)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            [
                "RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at CUDACachingAllocator.cpp",
                "NvMapMemAllocInternalTagged: 1075072515 error 12",
                "RuntimeError: Engine core initialization failed. See root cause above.",
            ],
            ["nvmap-oom", "nvml-success-assert"],
        ),
        (
            [
                "FAILED: [code=137] CMakeFiles/_C.dir/a.cu.o",
                "Killed",
                STOPPED,
                "subprocess.CalledProcessError: Command '['cmake']' returned non-zero exit status 137.",
                "ERROR: Failed building wheel for vllm",
            ],
            ["oom-killed-line", "oom-exit-status"],
        ),
        (
            [
                "FAILED: [code=255] CMakeFiles/_C.dir/a.cu.o",
                "Killed",
                "nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
                STOPPED,
            ],
            ["oom-device-compiler", "oom-exit-status", "oom-killed-line"],
        ),
        (
            [
                "INFO No platform detected, vLLM is running on UnspecifiedPlatform",
                "WARNING The vLLM package was not found, so its version could not be inspected.",
                "RuntimeError: Device string must not be empty",
            ],
            ["pkg-metadata-missing", "unspecified-platform", "device-string-empty"],
        ),
        (
            [
                "RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`",
                "This kernel only supports sm100f.",
            ],
            ["flashinfer-sm100f", "cublas-failed"],
        ),
        (
            [
                "Compiling the CUDA compiler identification source file \"CMakeCUDACompilerId.cu\" failed.",
                "nvcc fatal   : Unsupported gpu architecture 'compute_101'",
            ],
            ["nvcc-unsupported-arch", "cuda-identification"],
        ),
    ],
)  # fmt: skip
def test_the_cause_stands_before_what_wraps_it(lines: list[str], expected: list[str]) -> None:
    found = ids(diagnose(lines))
    assert found[0] == expected[0]
    assert set(found) <= set(expected)


def test_a_download_that_was_repeated_with_success_is_no_failure() -> None:
    retried = (
        "WARNING: Retrying (Retry(total=4)) after connection broken by 'Connection reset by peer': /six/"
    )
    assert not diagnose([retried, "Successfully installed six-1.17.0"]).failed
    assert ids(diagnose([retried, STOPPED])) == ["connection-broken"]


def test_a_log_that_ends_with_an_exception_failed_without_a_known_cause() -> None:
    found = diagnose(
        [
            "Traceback (most recent call last):",
            '  File "a.py", line 1, in <module>',
            "ZeroDivisionError: division by zero",
        ]
    )
    assert found.unknown and found.tail[-1] == "ZeroDivisionError: division by zero"
    assert diagnose(["ValueError: caught and logged", *["working"] * 40]).unknown, (
        "an error, and no word of success"
    )


@pytest.mark.parametrize("end", ["", "\n"])
def test_text_bytes_and_files_say_the_same(tmp_path: Path, end: str) -> None:
    text = f"a\nb\n{known()[0].signature.sample}{end}"
    path = tmp_path / "log"
    path.write_text(text)
    expected = ids(diagnose(text.split("\n")))
    assert ids(diagnose_file(path)) == ids(diagnose([text.encode()])) == expected
    assert diagnose_file(path).lines == diagnose([text]).lines == 3


def test_a_huge_line_without_a_newline_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as stream:
        for _ in range(40):
            stream.write(b"x" * BLOCK)
        stream.write(b" nvcc fatal   : Unsupported gpu architecture 'compute_101'")
    tracemalloc.start()
    found = diagnose_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ids(found) == ["nvcc-unsupported-arch"]
    assert (found.findings[0].line, found.lines) == (1, 1)
    assert len(found.findings[0].text) < 500
    assert peak < 12 * BLOCK


def test_a_failing_unit_that_says_much_keeps_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        "[1/2] Building\nFAILED: a.cu.o\n"
        + "note: in instantiation\n" * 100_000
        + "a.cu(3): oh no\n[2/2] Building b\n"
        + STOPPED
    )
    found = diagnose_file(path)
    assert found.unknown and found.unit == "a.cu.o"
    assert found.tail[-1] == "a.cu(3): oh no"


@pytest.mark.parametrize(
    "content", [b"\x7fELF" + bytes(100), b"\x1f\x8b\x08" + b"x" * 50, "log\n".encode("utf-16")]
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(CouldNotCheck, match="is not text"):
        diagnose_file(path)


def test_an_empty_log_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert not diagnose_file(tmp_path / "log").failed
    with pytest.raises(CouldNotCheck, match="No such file"):
        diagnose_file(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ('regex = "("', "regex"),
        ('hides = ["nothing"]', "hides unknown"),
        ('colour = "red"', "colour"),
        ('kind = "guess"', "guess"),
    ],
)
def test_broken_data_is_refused(tmp_path: Path, change: str, why: str) -> None:
    regex = "" if change.startswith("regex") else 'regex = "hello there"\n'
    (tmp_path / "a.toml").write_text(f"{ENTRY}{regex}{change}\n")
    with pytest.raises(BadData, match=why):
        load(tmp_path)


def test_two_signatures_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(ENTRY + 'regex = "hello there"\n')
    with pytest.raises(BadData, match="also stands in"):
        load(tmp_path)


def test_the_task_prints_one_json_document_from_standard_input() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "invoke", "diagnose", "-", "--json"],
        input=(LOGS / "hash.log").read_bytes(),
        capture_output=True,
        cwd=PROJECT,
        check=False,
    )
    document = json.loads(answer.stdout)
    assert answer.returncode == 65 and b"Traceback" not in answer.stderr
    assert document["unknown"] is False and document["state"] == "known"
    assert {"line", "text", "tool", "phase", "package", "unit", "context"} <= set(document["report"])
    assert set(document["findings"][0]) == {"id", "line", "text", "cause", "fix", "sources", "primary"}
    assert document["findings"][0]["id"] == "hash-mismatch"


def test_real_compilers_that_are_killed_are_told(tmp_path: Path) -> None:
    """The real words of this machine's gcc when its cc1plus is killed."""
    source = tmp_path / "a.cpp"
    source.write_text('#include <sys/types.h>\n#include "fifo"\n')
    subprocess.run(
        ["mkfifo", str(tmp_path / "fifo")], check=True
    )  # cc1plus waits for it, so it can be killed
    child = subprocess.Popen(
        ["g++", "-c", str(source), "-o", str(tmp_path / "a.o")],
        stderr=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    while subprocess.run(["pkill", "-9", "-P", str(child.pid), "cc1plus"], check=False).returncode:
        assert child.poll() is None
    _, words = child.communicate(timeout=30)
    assert ids(diagnose([words])) == ["oom-host-compiler"]


@pytest.mark.parametrize("prefix", ["", "      ", "#12 345.6 ", "2025-11-20T15:30:00.1234567Z "])
def test_the_unit_is_found_behind_the_prefix_of_pip_docker_and_ci(prefix: str) -> None:
    said = ["[1/3] Building a", "FAILED: [code=1] b.cu.o", "b.cu(3): oh no", "[3/3] Building c", STOPPED]
    found = diagnose([prefix + line for line in said])
    assert found.unknown and found.unit == "b.cu.o"
    assert [line.strip() for line in found.tail][-1].endswith("b.cu(3): oh no")
    assert not any("Building c" in line for line in found.tail)
