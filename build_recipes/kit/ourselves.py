"""Who runs: this program's version and commit, and the run of a workflow that it is in, if it is in one.

GitHub Actions tells the run by its default variables:
https://docs.github.com/en/actions/reference/workflows-and-actions/variables
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from build_recipes.kit import paths, process
from build_recipes.kit.errors import ToolFailed

DESCRIBE = "git describe --dirty --tags --long --match v[0-9]*"
"""As in pyproject.toml: a release of wheels (``vllm-v0.33.0``) is not a version of this program."""
STARTED = time.time()
"""Seconds since 1970: when this process began, as near as it knows."""
LOCAL = "urn:vllm-armory:builder:local"
"""The builder of what was built by hand: nobody vouches for it."""


@functools.cache
def version() -> str:
    """The program's version: of a checkout as git tells it, else as setuptools-scm wrote it; else ``unknown``."""
    if paths.CHECKOUT:
        from setuptools_scm import get_version

        with contextlib.suppress(LookupError, OSError):  # no git, or no history: a tarball of the tree
            return str(get_version(root=str(paths.PROJECT), scm={"git": {"describe_command": DESCRIBE}}))
    try:
        from build_recipes._version import version as found
    except ImportError:
        return "unknown"
    return str(found)


@functools.cache
def commit() -> str:
    """The commit of this checkout, 40 digits; empty where it is none."""
    if not paths.CHECKOUT:
        return ""
    safe = f"safe.directory={paths.PROJECT}"
    try:
        return process.capture(["git", "-c", safe, "-C", paths.PROJECT, "rev-parse", "--verify", "HEAD"])
    except ToolFailed:
        return ""


@dataclass(frozen=True)
class Invocation:
    """One run of a workflow; all empty but `builder` where it is none."""

    builder: str
    """The workflow's identity, ``https://github.com/owner/name/.github/workflows/nightly.yml@refs/heads/main``,
    which is what GitHub's attestations name as the builder; `LOCAL` elsewhere."""
    url: str = ""
    """The run's page: with its attempt, as the builder's invocation id."""
    repository: str = ""
    """Address of the repository that the workflow is in."""
    commit: str = ""
    """Its commit, 40 digits."""


def invocation(environ: Mapping[str, str] | None = None) -> Invocation:
    """The run of a workflow that this process is in."""
    env = os.environ if environ is None else environ
    server, repository = env.get("GITHUB_SERVER_URL", ""), env.get("GITHUB_REPOSITORY", "")
    run = env.get("GITHUB_RUN_ID", "")
    if not (server and repository and run):
        return Invocation(LOCAL)
    workflow = env.get("GITHUB_WORKFLOW_REF", "")
    attempt = env.get("GITHUB_RUN_ATTEMPT", "1")
    return Invocation(
        f"{server}/{workflow}" if workflow else LOCAL,
        f"{server}/{repository}/actions/runs/{run}/attempts/{attempt}",
        f"{server}/{repository}",
        env.get("GITHUB_SHA", ""),
    )
