"""Options of `verify` and `verify-omni`."""

from __future__ import annotations

from dataclasses import dataclass

from build_recipes.kit.options import JSON, option


@dataclass(frozen=True, kw_only=True)
class Options:
    """The words of the command line."""

    packages: tuple[str, ...] = option(
        (), "any package that imports vLLM: NAME or NAME==VERSION (repeatable)", name="package"
    )
    """vllm-omni where there is none."""
    omni: str = option(
        "", "vllm-omni: a version, latest, a wheel, an sdist or a folder (default: the newest that can work)"
    )
    from_: str = option("", "a wheel, an sdist or a folder of the package instead of a release")
    tag: str = option(
        "", "vLLM release tag (default: of the newest wheel in wheels/, else of the newest lock)"
    )
    vllm: str = option("", "a vLLM wheel, sdist or folder instead of a tag")
    run: bool = option(False, "really import everything, in a fresh environment with the built wheel")
    stub: bool = option(
        False, "really import everything, with a CPU torch and stand-ins for compiled modules"
    )
    env: str = option("", "an environment that is used as it is, instead of a new one, for --run and --stub")
    limit: int = option(1800, "seconds for all real imports")
    matrix: bool = option(False, "judge all releases on all releases")
    record: bool = option(
        False, "with --matrix: write its counts into the project, where suggestions come from"
    )
    html: str = option("", "write the pair, or with --matrix all of them, as one page to this file")
    device: str = option("thor", "device that requirements are resolved for")
    resolve: bool = option(
        False, "ask the package index for requirements; only uv's cache is asked without it"
    )
    json: bool = option(False, JSON)

    @property
    def given(self) -> str:
        """The package's release, file or folder, however it was typed."""
        return self.omni or self.from_
