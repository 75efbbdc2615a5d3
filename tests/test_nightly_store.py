"""Results that are not lost: the database, its migrations, the feed, crashes, full disks and jumping clocks."""

from __future__ import annotations

import datetime
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from build_recipes.kit.errors import BadData, NotWritable, UsageError
from build_recipes.kit.paths import Places
from build_recipes.nightly import feed, schema
from build_recipes.nightly.events import Event, decode
from build_recipes.nightly.night import open_store
from build_recipes.nightly.store import Store


def event(number: int, kind: str = "step", run: str = "a@1", **data: object) -> Event:
    return Event(f"{run}#{kind}#{number}", kind, run, "2026-01-01T00:00:00Z", "here", dict(data))


def a_run(store: Store, run: str, job: str, state: str, fingerprint: str = "f1") -> None:
    store.record("started", run, "x", {"job": job, "fingerprint": fingerprint})
    if state != "running":
        kind = "paused" if state in ("checkpointed", "interrupted") else "ended"
        store.record(kind, run, "", {"state": state, "seconds": 5})


def test_a_run_is_what_its_events_come_to(tmp_path: Path) -> None:
    with Store(tmp_path / "n.sqlite") as store:
        store.record("started", "j@1", "a1", {"job": "j", "fingerprint": "f"})
        store.record("step", "j@1", "a1.build", {"step": "build", "state": "failed"})
        store.record("paused", "j@1", "a1", {"state": "checkpointed", "seconds": 10})
        assert store.unfinished("j", "f")
        assert store.unfinished("j", "other") is None
        store.record("started", "j@1", "a2", {"job": "j", "fingerprint": "f"})
        store.record("step", "j@1", "a2.build", {"step": "build", "state": "passed"})
        store.record("ended", "j@1", "", {"state": "green", "seconds": 2.5})
        (run,) = store.runs("j")
        assert (run.state, run.attempts, run.seconds) == ("green", 2, 12.5)
        assert store.steps("j@1")["build"].data["state"] == "passed"
        assert store.unfinished("j", "f") is None


def test_green_counts_only_for_the_same_fingerprint_and_until_it_turns_red(tmp_path: Path) -> None:
    with Store(tmp_path / "n.sqlite") as store:
        a_run(store, "j@1", "j", "green")
        assert store.green("j", "f1")
        assert store.green("j", "f2") is None
        assert store.green("j", "") is None
        a_run(store, "j@2", "j", "running")
        assert store.green("j", "f1"), "a run that is under way changes nothing"
        a_run(store, "j@3", "j", "red")
        assert store.green("j", "f1") is None


def test_a_run_ends_once_whatever_arrives_later(tmp_path: Path) -> None:
    with Store(tmp_path / "n.sqlite") as store:
        a_run(store, "j@1", "j", "green")
        store.record("ended", "j@1", "", {"state": "red", "seconds": 1})
        store.merge([event(1, "paused", "j@1", state="interrupted", seconds=1)])
        store.merge([event(2, "started", "j@1", job="j", fingerprint="f1")])
        (run,) = store.runs("j")
        assert (run.state, run.seconds) == ("green", 5)
        assert [e.data["state"] for _, e in store.events() if e.kind == "ended"] == ["green"]


def test_a_database_of_schema_1_is_brought_up_to_date_with_its_content(tmp_path: Path) -> None:
    path = tmp_path / "n.sqlite"
    old = sqlite3.connect(path)
    for statement in schema.MIGRATIONS[0]:
        old.execute(statement)
    rows = [
        event(1, "started", job="j", fingerprint="f"),
        event(2, "step", step="build", state="passed"),
        event(3, "ended", state="green", seconds=7),
    ]
    for row in rows:
        old.execute(
            "INSERT INTO events (id, kind, run, body) VALUES (?, ?, ?, ?)",
            (row.id, row.kind, row.run, row.line().decode()),
        )
    old.execute("PRAGMA user_version=1")
    old.commit()
    old.close()
    with Store(path) as store:
        (run,) = store.runs("j")
        assert (run.state, run.seconds) == ("green", 7)
        assert list(store.steps("a@1")) == ["build"]
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
    with Store(path) as again:
        assert len(again.runs()) == 1


def test_a_newer_database_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    newer = tmp_path / "newer.sqlite"
    with Store(newer) as store:
        store._db.execute("PRAGMA user_version=99")
    with pytest.raises(BadData, match="schema 99"):
        Store(newer)
    (tmp_path / "text.sqlite").write_text("this is no database\n" * 100)
    with pytest.raises(BadData, match="damaged") as caught:
        Store(tmp_path / "text.sqlite")
    assert "feed.jsonl" in caught.value.advice
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(NotWritable):
        Store(tmp_path / "folder.sqlite")


def test_a_lost_database_is_read_back_from_the_feed(places: Places) -> None:
    folder = places.wheels / "nightly"
    with open_store(places) as store:
        a_run(store, "j@1", "j", "green")
        feed.sync(store, folder / "feed.jsonl")
    before = (folder / "feed.jsonl").read_bytes()
    for file in folder.glob("night.sqlite*"):
        file.unlink()
    with open_store(places) as store:
        assert store.green("j", "f1")
        feed.sync(store, folder / "feed.jsonl")
    assert (folder / "feed.jsonl").read_bytes() == before, "nothing is doubled"
    with pytest.raises(UsageError, match="no feed"):
        open_store(places, ("/nowhere/feed.jsonl",))


def test_a_line_cut_off_by_a_crash_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    with Store(tmp_path / "n.sqlite") as store:
        for number in range(4):
            store.record("step", "j@1", str(number), {"step": str(number), "state": "passed"})
        assert feed.sync(store, path) == 4
        whole = path.read_bytes()
        for cut in (1, 17, len(whole.splitlines()[-1]), len(whole.splitlines()[-1]) + 5):
            path.write_bytes(whole[:-cut])
            assert len(feed.read(path).events) == (3 if cut < len(whole.splitlines()[-1]) + 1 else 2)
            feed.sync(store, path)
            assert path.read_bytes() == whole
        assert feed.sync(store, path) == 0


def test_damaged_lines_are_counted_and_the_rest_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [event(1).line(), b"{not json", b"\xff\xfe", b'{"id": 5}', event(2).line(), b"", b'{"schema"']
    (tmp_path / "f.jsonl").write_bytes(b"\n".join(lines))
    got = feed.read(tmp_path / "f.jsonl")
    assert [e.id for e in got.events] == ["a@1#step#1", "a@1#step#2"]
    assert got.damaged == [2, 3, 4, 6]
    assert got.cut == len(lines[-1])
    assert len(feed.read_all([tmp_path / "f.jsonl", tmp_path / "f.jsonl"])) == 2
    assert "4 lines are damaged" in capsys.readouterr().err
    newer = event(3).line().replace(b'"schema":1', b'"schema":2')
    with pytest.raises(ValueError, match="newer"):
        decode(newer)


def test_a_clock_that_jumps_changes_neither_order_nor_durations(tmp_path: Path) -> None:
    times = iter(
        datetime.datetime(year, 1, 1, tzinfo=datetime.timezone.utc) for year in (2026, 2031, 1999, 2026)
    )
    with Store(tmp_path / "n.sqlite", clock=lambda: next(times)) as store:
        a_run(store, "j@1", "j", "red")
        a_run(store, "j@2", "j", "green")
        feed.sync(store, tmp_path / "feed.jsonl")
        assert [run.id for run in store.runs("j")] == ["j@2", "j@1"]
        assert store.green("j", "f1")
    got = feed.read(tmp_path / "feed.jsonl").events
    assert [e.time[:4] for e in got] == ["2026", "2031", "1999", "2026"]
    assert [e.run for e in got] == ["j@1", "j@1", "j@2", "j@2"]


WRITER = """
import sys
from pathlib import Path
from build_recipes.nightly import feed
from build_recipes.nightly.store import Store
folder = Path(sys.argv[1])
with Store(folder / "n.sqlite") as store:
    for number in range(100000):
        store.record("step", "j@1", str(number), {"step": str(number), "pad": "x" * 2000})
        sys.stdout.write(f"{number}\\n"); sys.stdout.flush()
        feed.sync(store, folder / "feed.jsonl")
"""


def test_kill_9_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    for wanted in (3, 30):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout
        told = -1
        for line in writer.stdout:
            told = int(line)
            if told >= wanted:
                writer.send_signal(signal.SIGKILL)
                break
        told = max([told, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        writer.wait()
        with Store(tmp_path / "n.sqlite") as store:
            known = {e.data["step"] for _, e in store.events()}
            assert {str(number) for number in range(told + 1)} <= known
            feed.sync(store, tmp_path / "feed.jsonl")
            lines = (tmp_path / "feed.jsonl").read_bytes().splitlines()
            assert [json.loads(line)["data"]["step"] for line in lines] == sorted(known, key=int)


FILLER = """
import sys
from pathlib import Path
from build_recipes.kit.errors import ArmoryError
from build_recipes.nightly import feed
from build_recipes.nightly.store import Store
folder = Path(sys.argv[1])
done = 0
try:
    with Store(folder / "n.sqlite") as store:
        while done < 10000:
            store.record("step", "j@1", str(done), {"step": str(done), "pad": "x" * 4000})
            done += 1
            feed.sync(store, folder / "feed.jsonl")
except ArmoryError as error:
    print(type(error).__name__, error.args[0])
held = folder / "ballast"
held.unlink()
with Store(folder / "n.sqlite") as store:
    feed.sync(store, folder / "feed.jsonl")
    known = [event.data["step"] for _, event in store.events()]
print(known == [str(number) for number in range(done)], len(feed.read(folder / "feed.jsonl").events) == done, done)
"""


def test_a_full_disk_stops_with_a_clear_word_and_loses_nothing(tmp_path: Path) -> None:
    """On a file system of 1 MiB of its own, filled by the results themselves; then some space is freed."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "fill.py").write_text(FILLER)
    script = (
        'mount -t tmpfs -o size=1024k none "$1" && dd if=/dev/zero of="$1/ballast" bs=1k count=400 2>/dev/null'
        ' && exec "$2" "$3" "$1"'
    )
    as_root = [] if os.geteuid() == 0 else ["-Ur"]
    done = subprocess.run(
        ["unshare", *as_root, "-m", "sh", "-c", script, "sh", tmp_path / "disk", sys.executable, tmp_path / "fill.py"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    said, verdict = done.stdout.splitlines()
    assert said.startswith("NotEnoughDisk"), done
    assert verdict.startswith("True True"), done
    assert int(verdict.split()[-1]) > 5
