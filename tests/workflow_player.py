"""Plays a workflow of .github/workflows here: every `run:` step as it stands, in a fresh clone; `uses:` by stand-ins.

The stand-ins do what the actions document: checkout clones, artifacts are zips on the small GitHub (`github_fake`),
caches are folders by key, Pages is deployed by replacing its files, and attesting checks the sums that
it would sign. A job's token may do what its ``permissions`` say, and nothing else. Expressions are the few that these
workflows use: https://docs.github.com/en/actions/reference/workflows-and-actions/expressions
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import github_fake
import yaml

TOKEN = re.compile(r"\s*(?:(&&|\|\||==|!=|!|\(|\)|,)|'((?:[^']|'')*)'|([A-Za-z_][\w.-]*)|(\d+))")


class Expression:
    """One ``${{ }}``."""

    def __init__(self, text: str, know: dict[str, Any]) -> None:
        self.parts = [match.groups() for match in TOKEN.finditer(text)]
        self.know, self.at = know, 0

    def value(self) -> Any:
        found = self._or()
        assert self.at == len(self.parts), self.parts
        return found

    def _take(self, *marks: str) -> str:
        if self.at < len(self.parts) and self.parts[self.at][0] in marks:
            self.at += 1
            return str(self.parts[self.at - 1][0])
        return ""

    def _or(self) -> Any:
        left = self._and()
        while self._take("||"):
            right = self._and()
            left = left or right
        return left

    def _and(self) -> Any:
        left = self._equal()
        while self._take("&&"):
            right = self._equal()
            left = right if left else left
        return left

    def _equal(self) -> Any:
        left = self._plain()
        while mark := self._take("==", "!="):
            right = self._plain()
            same = (
                str(left or "") == str(right or "")
                if not isinstance(left, bool)
                else left == (right == "true")
            )
            left = same if mark == "==" else not same
        return left

    def _plain(self) -> Any:
        if self._take("!"):
            return not self._plain()
        if self._take("("):
            inner = self._or()
            assert self._take(")")
            return inner
        _, text, name, number = self.parts[self.at]
        self.at += 1
        if text is not None:
            return text.replace("''", "'")
        if number is not None:
            return int(number)
        if self._take("("):
            words = []
            while not self._take(")"):
                words.append(self._or())
                self._take(",")
            return self._call(str(name), words)
        value: Any = self.know
        for key in str(name).split("."):
            value = value.get(key, "") if isinstance(value, dict) else ""
        return value

    def _call(self, name: str, words: list[Any]) -> Any:
        if name == "fromJSON":
            return json.loads(words[0])
        if name == "format":
            return re.sub(r"\{(\d+)\}", lambda match: str(words[1 + int(match[1])]), words[0])
        if name == "hashFiles":
            return (
                "x"
                if any(
                    self.know["workspace"].glob(word)
                    for word in words
                    if list(self.know["workspace"].glob(word))
                )
                else ""
            )
        return {
            "cancelled": False,
            "always": True,
            "success": self.know["good"],
            "failure": not self.know["good"],
        }[name]


@dataclass
class Done:
    """How a job ended."""

    result: str
    outputs: dict[str, Any]
    steps: list[str] = field(default_factory=list)


@dataclass
class Player:
    """Runs of one workflow."""

    fake: github_fake.Fake
    clone: Path
    """The runner's workspace: one clone, which is as new for each job; its .venv stays."""
    home: Path
    env: dict[str, str]
    """What the runner has besides: caches, HOME."""
    variables: dict[str, str] = field(default_factory=dict)
    caches: dict[str, Path] = field(default_factory=dict)
    run_id: int = 0
    log: list[str] = field(default_factory=list)
    attested: list[str] = field(default_factory=list)

    def play(self, path: str) -> dict[str, Done]:
        """One run. Returns its jobs (of a matrix each by its name)."""
        self.run_id += 1
        self._fresh()
        workflow = yaml.safe_load((self.clone / path).read_text())
        know: dict[str, Any] = {
            "github": {"run_id": self.run_id, "run_attempt": 1, "event_name": "schedule", "token": "",
                       "repository": github_fake.NAME, "server_url": self.fake.address,
                       "event": {"repository": {"fork": False}}},
            "vars": self.variables, "inputs": {}, "good": True, "workspace": self.clone,
        }  # fmt: skip
        know["env"] = {name: self._text(value, know) for name, value in (workflow.get("env") or {}).items()}
        needs: dict[str, Done] = {}
        ended: dict[str, Done] = {}
        for name, job in workflow["jobs"].items():
            asked = job.get("needs", [])
            asked = [asked] if isinstance(asked, str) else asked
            here = {
                **know,
                "needs": {one: {"result": needs[one].result, "outputs": needs[one].outputs} for one in asked},
            }
            here["good"] = all(needs[one].result == "success" for one in asked)
            if not self._if(job.get("if"), here):
                needs[name] = Done("skipped", {})
                self.log.append(f"{name}: skipped")
                continue
            rows = self._matrix(job, here)
            parts = [self._job(name, job, {**here, "matrix": row}, path) for row in rows]
            for row, part in zip(rows, parts, strict=True):
                ended[f"{name} {row.get('id', '')}".strip()] = part
            bad = [part for part in parts if part.result != "success"]
            needs[name] = Done("failure" if bad else "success", parts[0].outputs if parts else {})
        return ended | {name: done for name, done in needs.items() if done.result == "skipped"}

    def _matrix(self, job: dict[str, Any], know: dict[str, Any]) -> list[dict[str, Any]]:
        matrix = (job.get("strategy") or {}).get("matrix")
        if matrix is None:
            return [{}]
        if isinstance(matrix, str):
            matrix = self._value(matrix, know)
        include = matrix["include"]
        rows: list[dict[str, Any]] = self._value(include, know) if isinstance(include, str) else include
        return rows

    def _job(self, name: str, job: dict[str, Any], know: dict[str, Any], path: str) -> Done:
        self._fresh()
        token = ",".join(f"{what}={may}" for what, may in (job.get("permissions") or {}).items())
        know = {**know, "good": True, "steps": {}, "github": {**know["github"], "token": token}}
        env = {**know["env"]}
        env |= {key: self._text(value, know) for key, value in (job.get("env") or {}).items()}
        know["env"] = env
        told: list[str] = []
        title = self._text(job.get("name", name), know)
        for number, step in enumerate(job["steps"]):
            label = str(step.get("name") or step.get("run") or step.get("uses", "").partition("@")[0])
            key = step.get("id") or f"step{number}"
            if not self._if(step.get("if"), know):
                know["steps"][key] = {"outcome": "skipped", "outputs": {}}
                continue
            mine = {**env, **{k: self._text(v, know) for k, v in (step.get("env") or {}).items()}}
            if "run" in step:
                good, outputs = self._run(step["run"], mine, know, path)
            else:
                words = {k: self._text(v, know) for k, v in (step.get("with") or {}).items()}
                good, outputs = self._use(step["uses"].partition("@")[0], words, know), {}
            know["steps"][key] = {"outcome": "success" if good else "failure", "outputs": outputs}
            told.append(f"{label}: {'ok' if good else 'failed'}")
            know["good"] = know["good"] and good
        outputs = {key: self._text(value, know) for key, value in (job.get("outputs") or {}).items()}
        done = Done("success" if know["good"] else "failure", outputs, told)
        self.log.append(f"{title}: {done.result} ({'; '.join(told)})")
        return done

    # -- steps -----------------------------------------------------------------------------------

    def _run(
        self, line: str, env: dict[str, str], know: dict[str, Any], path: str
    ) -> tuple[bool, dict[str, str]]:
        output = self.home / "output"
        output.write_text("")
        github = {
            "GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(output), "GITHUB_REPOSITORY": github_fake.NAME,
            "GITHUB_SERVER_URL": self.fake.address, "GITHUB_API_URL": self.fake.address,
            "GITHUB_RUN_ID": str(self.run_id), "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_SHA": self.fake.git("rev-parse", "HEAD"),
            "GITHUB_WORKFLOW_REF": f"{github_fake.NAME}/{path}@refs/heads/main",
        }  # fmt: skip
        done = subprocess.run(
            ["bash", "-e", "-c", line], cwd=self.clone, env={**self.env, **github, **env}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        with (self.home / f"run{self.run_id}.log").open("a") as stream:
            stream.write(f"$ {line}\n{done.stdout}{done.stderr}[exit {done.returncode}]\n")
        rows = (row.split("=", 1) for row in output.read_text().splitlines())
        return done.returncode == 0, {row[0]: row[1] for row in rows}

    def _use(self, action: str, words: dict[str, str], know: dict[str, Any]) -> bool:
        kind = action.partition("/")[2]
        if kind in ("checkout", "setup-python"):
            return True  # the workspace is a clone of the commit already; this machine's Python is used
        if kind == "cache/restore":
            found = [
                key
                for key in self.caches
                if key == words["key"] or key.startswith(words.get("restore-keys") or "\n")
            ]
            if found:
                shutil.copytree(self.caches[found[-1]], self._place(words["path"]), dirs_exist_ok=True)
            return True
        if kind == "cache/save":
            if (source := self._place(words["path"])).exists():
                target = self.home / "caches" / words["key"]
                self.caches[words["key"]] = Path(shutil.copytree(source, target, dirs_exist_ok=True))
            return True
        if kind == "upload-artifact":
            return self._upload(words)
        if kind == "download-artifact":
            return self._download(words)
        if kind == "upload-pages-artifact":
            shutil.rmtree(self.home / "site", ignore_errors=True)
            shutil.copytree(self.clone / words["path"], self.home / "site")
            return True
        if kind == "deploy-pages":
            assert "pages=write" in know["github"]["token"]
            github_fake.deploy(self.fake, self.home / "site")
            return True
        if kind == "attest-build-provenance":
            assert {"id-token=write", "attestations=write"} <= set(know["github"]["token"].split(","))
            sums = self.clone / words["subject-checksums"]
            for row in sums.read_text().splitlines():
                sha256, _, name = row.partition("  ")
                (file,) = [path for path in sums.parent.rglob(name) if path.is_file()]
                assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256
                self.attested.append(name)
            return True
        raise NotImplementedError(action)

    def _place(self, path: str) -> Path:
        return Path(path.replace("~", self.env["HOME"], 1))

    def _upload(self, words: dict[str, str]) -> bool:
        """As actions/upload-artifact: names are relative to the folder that all patterns have in common."""
        patterns = words["path"].split()
        common = os.path.commonpath(
            [str(Path(one).parent) if "*" in one or len(patterns) > 1 else one for one in patterns]
        )
        found = [path for one in patterns for path in sorted(self.clone.glob(one))]
        files = [
            file
            for path in found
            for file in ([path] if path.is_file() else sorted(path.rglob("*")))
            if file.is_file()
        ]
        if not files:
            return words.get("if-no-files-found") == "ignore"
        packed = io.BytesIO()
        root = self.clone / common
        with zipfile.ZipFile(packed, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(root) if file != root else file.name)
        where = f"{self.fake.address}/repos/{github_fake.NAME}/actions/runs/{self.run_id}/artifacts/{words['name']}"
        with urlopen(Request(where, packed.getvalue(), method="PUT")) as answer:
            return bool(answer.status == 201)

    def _download(self, words: dict[str, str]) -> bool:
        where = f"{self.fake.address}/repos/{github_fake.NAME}/actions/runs/{self.run_id}/artifacts"
        with urlopen(where) as answer:
            rows = json.load(answer)["artifacts"]
        braces = re.fullmatch(r"\{(.*)\}(.*)", words.get("pattern", "*"))
        patterns = (
            [one + braces[2] for one in braces[1].split(",")] if braces else [words.get("pattern", "*")]
        )
        target = self.clone / words["path"]
        target.mkdir(parents=True, exist_ok=True)
        for row in rows:
            if any(fnmatch.fnmatchcase(row["name"], one) for one in patterns):
                with urlopen(row["archive_download_url"]) as answer:
                    content = io.BytesIO(answer.read())
                into = target if words.get("merge-multiple") == "true" else target / row["name"]
                with zipfile.ZipFile(content) as archive:
                    archive.extractall(into)
        return True

    def _fresh(self) -> None:
        """The workspace as a new runner has it, at the commit of main; only .venv stays."""
        if not self.clone.exists():
            subprocess.run(["git", "clone", "-q", self.fake.git_dir, self.clone], check=True)
        git = ["git", "-C", str(self.clone)]
        subprocess.run([*git, "fetch", "-q", "origin"], check=True)
        subprocess.run([*git, "reset", "-q", "--hard", "origin/HEAD"], check=True)
        subprocess.run([*git, "clean", "-qfdx", "-e", ".venv"], check=True)

    # -- expressions -----------------------------------------------------------------------------

    def _if(self, text: Any, know: dict[str, Any]) -> bool:
        if text is None:
            return bool(know["good"])
        plain = str(text).strip().removeprefix("${{").removesuffix("}}")
        value = bool(Expression(plain, know).value())
        named = re.search(r"\b(cancelled|always|success|failure)\(", plain)
        return value and (bool(named) or bool(know["good"]))

    def _value(self, text: str, know: dict[str, Any]) -> Any:
        whole = re.fullmatch(r"\$\{\{(.*)\}\}", text.strip(), re.S)
        return Expression(whole[1], know).value() if whole else text

    def _text(self, value: Any, know: dict[str, Any]) -> str:
        def plain(match: re.Match[str]) -> str:
            found = Expression(match[1], know).value()
            return (
                {True: "true", False: "false"}.get(found, str(found))
                if isinstance(found, bool)
                else str(found)
            )

        return re.sub(r"\$\{\{(.*?)\}\}", plain, str(value), flags=re.S)
