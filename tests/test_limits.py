"""What a process may use: the kernel's control groups as they are here, and copies of others' files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_recipes.build.units import costs, drive, graph
from build_recipes.build.units.broker import Broker
from build_recipes.build.units.costs import add_line, learned, read_journal
from build_recipes.build.units.progress import Progress
from build_recipes.kit.limits import Machine
from build_recipes.kit.paths import PACKAGE

GIB = 2**30
NINJA = Path(sys.executable).with_name("ninja")


def machine(root: Path, cgroup: str, mountinfo: str, files: dict[str, str], meminfo: str = "") -> Machine:
    """A copy of a machine's files with 64 GiB of memory and 8 GiB of swap."""
    texts = {
        "proc/self/cgroup": cgroup,
        "proc/self/mountinfo": mountinfo,
        "proc/meminfo": f"MemTotal: {64 << 20} kB\nMemAvailable: {60 << 20} kB\nSwapTotal: {8 << 20} kB\n{meminfo}",
        "proc/vmstat": "pgfault 1\noom_kill 7\n",
        **files,
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Machine(root)


V2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def test_a_limit_of_any_group_above_counts_and_memory_high_like_a_limit(tmp_path: Path) -> None:
    """systemd-run -p MemoryMax=16G inside of a slice with MemoryHigh=12G."""
    top = "sys/fs/cgroup/work.slice"
    here = machine(
        tmp_path,
        "0::/work.slice/run-1.scope\n",
        V2,
        {
            f"{top}/memory.max": "max\n",
            f"{top}/memory.high": f"{12 * GIB}\n",
            f"{top}/memory.current": f"{3 * GIB}\n",
            f"{top}/memory.stat": f"anon 5\nactive_file {GIB}\ninactive_file {GIB // 2}\n",
            f"{top}/run-1.scope/memory.max": f"{16 * GIB}\n",
            f"{top}/run-1.scope/memory.high": "max\n",
            f"{top}/run-1.scope/memory.swap.max": f"{2 * GIB}\n",
            f"{top}/run-1.scope/memory.current": f"{2 * GIB}\n",
            f"{top}/run-1.scope/memory.events": "low 0\noom 3\noom_kill 2\n",
            f"{top}/run-1.scope/cpu.max": "150000 100000\n",
        },
    )
    limits = here.limits()
    assert (limits.memory_gib, limits.swap_gib, limits.cores) == (12.0, 2.0, 1)
    assert limits.source.endswith("work.slice")
    assert here.available() == 12 * GIB - 3 * GIB // 2, "cache of files is no memory that is held"
    assert here.oom_kills() == 2


def test_a_container_of_v1_sees_its_own_group_at_the_mount(tmp_path: Path) -> None:
    """Docker on cgroups v1: the path is the host's, the mount shows only the own group."""
    own, other = "/docker/abc", "60 50 0:25 /docker/abc /sys/fs/cgroup/{} ro - cgroup cgroup rw,{}\n"
    here = machine(
        tmp_path,
        f"4:memory:{own}\n3:cpu,cpuacct:{own}\n",
        other.format("memory", "memory") + other.format("cpu,cpuacct", "cpu,cpuacct"),
        {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
            "sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": f"{5 * GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"cache 9\ntotal_active_file {GIB}\ntotal_inactive_file 0\n",
            "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert (here.limits().memory_gib, here.limits().swap_gib) == (4.0, 1.0)
    assert here.limits().cores == len(os.sched_getaffinity(0))
    assert here.available() == 3 * GIB
    assert here.oom_kills() == 5


POD = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7f.slice"
HYBRID = (
    "40 30 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 30 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)


@pytest.mark.parametrize(
    ("proc", "files", "seen"),
    [
        pytest.param(  # the default: the container's own group is all that can be seen
            ("0::/\n", V2.replace("rw,nosuid", "ro,nosuid")),
            {"memory.max": f"{6 * GIB}\n", "cpu.max": "100000 100000\n", "memory.high": "max\n"},
            (6.0, 1, "sys/fs/cgroup"), id="a pod with a cgroup namespace of its own",
        ),
        pytest.param(  # hostPID or an older runtime: the limit of the pod is less than the one of its container
            (f"0::/{POD}/cri-containerd-1.scope\n", V2),
            {f"{POD}/memory.max": f"{8 * GIB}\n", f"{POD}/cri-containerd-1.scope/memory.max": f"{9 * GIB}\n",
             f"{POD}/cri-containerd-1.scope/cpu.max": "max 100000\n", f"{POD}/cpu.max": "100000 100000\n",
             "kubepods.slice/memory.max": f"{60 * GIB}\n"},
            (8.0, 1, POD), id="a pod that sees the host's groups",
        ),
        pytest.param(  # the mount shows the container's group only, the path is the host's
            (f"0::/{POD}/cri-containerd-1.scope\n", V2.replace(" / /sys", f" /{POD}/cri-containerd-1.scope /sys")),
            {"memory.max": f"{5 * GIB}\n", "cpu.max": "max 100000\n"}, (5.0, 2, "sys/fs/cgroup"),
            id="a pod whose mount begins at its own group",
        ),
        pytest.param(
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u5.scope\n", V2),
            {"user.slice/user-1000.slice/memory.max": f"{7 * GIB}\n",
             "user.slice/user-1000.slice/user@1000.service/app.slice/run-u5.scope/memory.max": "max\n"},
            (7.0, 2, "user.slice/user-1000.slice"), id="MemoryMax of a user's slice",
        ),
        pytest.param(  # memory is with v1, v2 is there without it
            ("7:memory:/job\n0::/job\n", HYBRID),
            {"memory/job/memory.limit_in_bytes": f"{4 * GIB}\n", "unified/job/cgroup.procs": "1\n"},
            (4.0, 2, "memory/job"), id="both versions side by side",
        ),
    ],
)  # fmt: skip
def test_nested_groups_of_systemd_and_kubernetes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    proc: tuple[str, str],
    files: dict[str, str],
    seen: tuple[float, int, str],
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    limits = machine(
        tmp_path, *proc, {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    ).limits()
    assert (limits.memory_gib, limits.cores) == seen[:2]
    assert limits.source.endswith(seen[2])


def test_without_limits_the_machine_counts_less_what_its_gpu_holds(tmp_path: Path) -> None:
    none = {"sys/fs/cgroup/memory.max": "max\n"}
    here = machine(tmp_path, "0::/\n", V2, none, f"NvMapMemUsed: {24 << 20} kB\n")
    assert here.limits().memory_gib == 40.0
    assert "24.0 GiB that the GPU holds" in here.limits().source
    assert here.available() == 60 * GIB
    assert here.oom_kills() == 7, "no group counts: the machine's own count"


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """A real group of this machine, with a nested one."""
    for top in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        made = top / f"armory-test-{os.getpid()}"
        try:
            (made / "nested").mkdir(parents=True)
        except OSError:
            continue
        if (made / "memory.max").exists() or (made / "memory.limit_in_bytes").exists():
            break
        for folder in (made / "nested", made):
            folder.rmdir()
    else:
        pytest.skip("no group with a memory controller can be made here")
    yield made
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            (made / "nested").rmdir()
            made.rmdir()
            break
        except OSError:
            time.sleep(0.1)


def limit(group: Path, octets: int) -> None:
    """Limit a group's memory, without swap."""
    one = group / "memory.limit_in_bytes"
    (one if one.exists() else group / "memory.max").write_text(str(octets))


def inside(group: Path, code: str) -> str:
    """Run Python in the nested group; its standard output."""
    enter = f"import os; open({str(group / 'nested/cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
    command = [sys.executable, "-c", enter + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=PACKAGE.parent).stdout


@pytest.mark.parametrize("gib", [4, 8])
def test_a_process_in_a_real_nested_group_plans_with_the_groups_memory(group: Path, gib: int) -> None:
    limit(group, gib * GIB)
    said = inside(
        group,
        """
        from build_recipes.doctor.asking import Host
        from build_recipes.kit.limits import Machine
        import json
        here = Machine()
        print(json.dumps([Host.this().memory_gib, here.available() / 2**30, here.limits().source]))
        """,
    )
    memory, available, source = json.loads(said)
    assert memory == gib
    assert gib - 1 < available <= gib
    assert source == str(group)


COMPILE = """
    import sys; sys.path.insert(0, "tests")
    from pathlib import Path
    import test_limits
    test_limits.compile_here(Path({folder!r}))
"""


def compile_here(folder: Path) -> None:
    """Compile one unit under the broker, and say how it ended."""
    units = graph.read_graph(folder, NINJA, ["CMakeFiles/mod.dir/a.o"])
    broker = Broker(folder / ".broker.sock", 1, folder / "units.jsonl")
    done = drive.drive(
        units, broker, Progress(["mod/a.o"], {}), env=dict(os.environ), log=folder / "log", deadline=None
    )
    assert done.failed
    print(json.dumps([done.failed.oom, done.failed.alone, done.oom, done.failed.code]))


def project(folder: Path, compiler: str) -> None:
    """A ninja project with one unit, made by a compiler of our own."""
    (folder / "cc.py").write_text(textwrap.dedent(compiler))
    launcher = f"{sys.executable} -I -S {PACKAGE / 'build/units/unit.py'}"
    command = f"{launcher} {sys.executable} {folder}/cc.py -c a.c -o $out"
    (folder / "build.ninja").write_text(
        f"rule cc\n  command = {command}\n\nbuild CMakeFiles/mod.dir/a.o: cc a.c\n"
    )
    (folder / "a.c").write_text("")


def test_a_compiler_that_the_kernel_ends_for_want_of_memory_is_told_from_one_that_is_killed(
    group: Path, tmp_path: Path
) -> None:
    limit(group, 256 << 20)
    project(tmp_path, "hog = []\nwhile True: hog.append(bytearray(b'x') * (8 << 20))\n")
    assert json.loads(inside(group, COMPILE.format(folder=str(tmp_path))).splitlines()[-1]) == [
        True,
        True,
        True,
        -9,
    ]
    (row,) = read_journal(tmp_path / "units.jsonl")
    assert row["oom"] and row["alone"]
    project(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert json.loads(inside(group, COMPILE.format(folder=str(tmp_path))).splitlines()[-1])[:3] == [
        False,
        True,
        False,
    ]


def test_what_is_expected_after_kills_does_not_grow_and_is_forgotten_after_success(tmp_path: Path) -> None:
    journal = tmp_path / "units.jsonl"
    row = {"unit": "_C/x.cu.o", "code": 137, "cpu_s": 9.0, "rss_kib": 6 << 20, "killed": True, "oom": True}
    for _ in range(20):
        add_line(journal, row)
    assert learned(journal)["_C/x.cu.o"].gib == pytest.approx(8.0)
    add_line(journal, {**row, "oom": False})
    assert learned(journal)["_C/x.cu.o"].gib == pytest.approx(8.0), "a kill by hand says nothing of memory"
    add_line(journal, {**row, "code": 0, "rss_kib": 5 << 20, "oom": False, "killed": False})
    assert learned(journal)["_C/x.cu.o"] == costs.Cost(9.0, 5.0)
