"""No alternative of a signature is dead: every branch of its regex is reached through a needle and told."""

from __future__ import annotations

import pytest
from regex_strings import branches

from build_recipes.diagnosis.diagnose import diagnose
from build_recipes.diagnosis.signatures import Rule, known

STOPPED = "ninja: build stopped: subcommand failed."
TRACEBACK = (
    '  File "/x/site-packages/torch/cuda/memory.py", line 1, in mem_get_info\n    cudaMemGetInfo(device)'
)


@pytest.mark.parametrize("rule", known(), ids=lambda rule: rule.signature.id)
def test_every_branch_is_reached_through_a_needle(rule: Rule) -> None:
    """Strings are made from the regex; each that fits holds a needle, and the log that has it is told."""
    for place, made in enumerate(branches(rule.signature.regex)):
        assert made, f"branch {place} of {rule.signature.id}: no string of it fits the regex"
        for text in made:
            assert any(needle in text for needle in rule.needles), f"no needle in '{text}'"
        said = f"RuntimeError: {made[0]}" if rule.quoted else made[0]
        log = [*(TRACEBACK.split("\n") if rule.quoted else []), said, STOPPED]
        told = [found.id for found in diagnose(log).findings]
        assert rule.signature.id in told, f"'{made[0]}' is not told; told is {told}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/bin/sh: 1: nvcc: not found", "nvcc-missing"),
        ("bash: line 3: nvcc: command not found", "nvcc-missing"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/opt/cuda-13.0/bin/nvcc'", "nvcc-missing"),
        (
            "subprocess.CalledProcessError: Command '['cmake']' returned non-zero exit status -9.",
            "oom-exit-status",
        ),
        ("torch.cuda.OutOfMemoryError", "cuda-oom"),
        ('a.cu(3): error: class "cudaDeviceProp" has no member "memoryClockRate"', "device-prop-removed"),
        (
            "a.cpp:3:5: error: 'struct cudaDeviceProp' has no member named 'memoryClockRate'",
            "device-prop-removed",
        ),
        ("/usr/bin/ld.gold: error: cannot find -lcudart", "library-not-found"),
        ("bash: fork: Resource temporarily unavailable", "cannot-fork"),
        ("/bin/sh: 1: Cannot fork", "cannot-fork"),
    ],
)
def test_forms_that_were_once_missed(line: str, expected: str) -> None:
    assert expected in [found.id for found in diagnose([line, STOPPED]).findings]
