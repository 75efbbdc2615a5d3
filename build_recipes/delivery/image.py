"""`./inv image`: a container image that serves a wheel on its device, built by buildah, podman or docker.

The base is asked for by the digest that it had at its first use. The wheels are bound into the build and installed
by hash, so no layer holds them twice; times in the layers are the wheel's own, so the same context gives the same.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from build_recipes.delivery.bundle import Bundle, bundle, installing
from build_recipes.delivery.programs import uv_program
from build_recipes.formats.inflate import Archive
from build_recipes.kit import console, paths, process
from build_recipes.kit.data import Model, load_json, load_toml, parse_json, write_atomic
from build_recipes.kit.errors import ImageFailed, ToolFailed, UsageError
from build_recipes.kit.pages import environment
from build_recipes.kit.paths import Places

TOOLS = ("buildah", "podman", "docker")
ENVIRONMENT = "/opt/vllm"
USER = "vllm"
_YEAR_1980 = (1980, 1, 1, 0, 0, 0)
PLATFORMS = {"aarch64": "linux/arm64", "x86_64": "linux/amd64"}
HEALTH = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health', timeout=5)"


class Bases(Model, frozen=True):
    """image.toml."""

    base: dict[str, str]


class Digests(Model, frozen=True):
    """The digest each base image had at its first use."""

    digests: dict[str, str]


@functools.cache
def bases() -> dict[str, str]:
    """glibc to base image."""
    return load_toml(Path(__file__).with_name("image.toml"), Bases).base


@dataclass(frozen=True)
class Image:
    """A context, and what was built from it."""

    context: str
    base: str
    """With its digest, once that is known."""
    name: str
    """Empty where nothing was built."""
    tool: str
    digest: str
    """Of the image; empty where nothing was built."""
    size: int
    """Bytes, as the tool counts them; 0 where nothing was built."""
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def image(
    wheel: Path, *, device: str, python: str, bare: bool, base: str, name: str, tool: str, format: str,
    context: Path | None,
) -> Image:  # fmt: skip
    """Write the context of an image, and build it.

    :param context: folder for the context alone; nothing is built.
    :raises UsageError: no tool is there, or an option makes no sense.
    :raises ImageFailed: the tool refused; its last words are given.
    """
    started = time.monotonic()
    if format not in ("docker", "oci"):
        raise UsageError(f"'{format}' is not a format of an image", "--format docker, or --format oci")
    places = Places.from_environment()
    made = bundle(wheel, places, device=device, python=python, bare=bare)
    program = "" if context else _tool(tool)
    wanted = base or _base_for(made)
    pinned = _pinned(wanted, program, made)
    folder = context or places.build / "image" / next(iter(made.files.values()))[1][:16]
    write_context(folder, made, pinned, uv_program(made.device.machine, places), health=format == "docker")
    if not program:
        return Image(str(folder), pinned, "", "", "", 0, round(time.monotonic() - started, 1))
    name = name or f"vllm:{made.version.replace('+', '-')}"
    console.step("image", f"{name} from {pinned}, by {program}")
    log = folder.parent / f"{folder.name}.log"
    log.unlink(missing_ok=True)
    done = process.run([*_build(program, made, format), "--tag", name, str(folder)], log=log)
    if not done.ok:
        tail = "\n".join(done.tail[-8:])
        raise ImageFailed(
            f"{program} could not build {name} (whole log: {log}):\n{tail}", f"./inv diagnose {log}"
        )
    digest, size = _built(program, name)
    return Image(str(folder), pinned, name, program, digest, size, round(time.monotonic() - started, 1))


def _tool(asked: str) -> str:
    if asked and asked not in TOOLS:
        raise UsageError(f"'{asked}' is not a tool that is known", f"--tool {' | '.join(TOOLS)}")
    found = next((name for name in ((asked,) if asked else TOOLS) if shutil.which(name)), "")
    if not found:
        raise UsageError(
            f"this machine has no {asked or ', '.join(TOOLS)}",
            "apt-get install buildah; or write the context alone: ./inv image WHEEL --context-only DIR",
        )
    return found


def _base_for(made: Bundle) -> str:
    """The newest base whose glibc is not newer than the device's."""
    found = bases().get(made.device.glibc)
    if found is None:
        raise UsageError(f"no base image is known for glibc {made.device.glibc}", "name one: --base IMAGE")
    return found


def _pinned(base: str, program: str, made: Bundle) -> str:
    """The base with its digest: the one on record, else the one it has now, which is then recorded."""
    if "@" in base:
        return base
    record = paths.state_folder() / "base-images.json"
    known = load_json(record, Digests).digests if record.is_file() else {}
    key = f"{base} {made.device.machine}"
    if key in known:
        return f"{base}@{known[key]}"
    if not program:
        console.warn(f"the digest of {base} is not known yet: the first build records it")
        return base
    platform = PLATFORMS[made.device.machine]
    local = base.startswith("localhost/")
    if not local:
        pulled = process.run([program, "pull", "--quiet", "--platform", platform, base])
        if not pulled.ok:
            raise ImageFailed(
                f"{program} could not pull {base}: {' '.join(pulled.tail)[-400:]}",
                "--base IMAGE names another",
            )
    digest = _built(program, base)[0]
    if not digest:
        return base
    write_atomic(record, json.dumps({"digests": {**known, key: digest}}, indent=1))
    return f"{base}@{digest}"


def _built(program: str, name: str) -> tuple[str, int]:
    """Digest and size of an image that is here."""
    asked = {
        "docker": ["image", "inspect", name],
        "podman": ["images", "--digests", "--format", "json", name],
        "buildah": ["images", "--json", name],
    }[program]
    try:
        rows = json.loads(process.capture([program, *asked]))
    except ToolFailed as error:
        raise ImageFailed(
            f"{program} has no image {name}: {error.words}", "--base IMAGE names another"
        ) from None
    row = rows[0]
    if program == "docker":  # an image that was never in a registry has no digest to be asked for by
        digests = [one.partition("@")[2] for one in row.get("RepoDigests") or []]
        return (digests[0] if digests else ""), int(row["Size"])
    return str(row.get("digest") or row.get("Digest")), _octets(row.get("size") or row.get("Size") or 0)


def _octets(size: object) -> int:
    """buildah says '694 MB'."""
    found = re.fullmatch(r"([\d.]+)\s*([kKMGT]?)i?B", str(size))
    if not found:
        return int(str(size)) if str(size).isdigit() else 0
    return round(float(found[1]) * float(1000 ** " KMGT".index(found[2].upper() or " ")))


def _build(program: str, made: Bundle, format: str) -> list[str]:
    platform, epoch = PLATFORMS[made.device.machine], str(epoch_of(made.wheel))
    if program == "docker":
        words = ["docker", "buildx", "build", "--load", "--platform", platform, "--provenance=false"]
        return [*words, "--build-arg", f"SOURCE_DATE_EPOCH={epoch}", "--file", "Containerfile"]
    # podman would keep a layer of each line, which are whole copies where the storage driver is vfs
    words = [program, "build", "--platform", platform, "--timestamp", epoch, "--format", format, "--no-cache"]
    return [*words, "--layers=false"]


def fingerprint(wheel: Path) -> str:
    """Of the plan that a wheel was built by, from the manifest beside it; empty where that does not say it."""
    try:
        path = wheel.with_name(wheel.name.removesuffix(".whl") + ".manifest.json")
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    plan = found.get("plan") if isinstance(found, dict) else None
    return str(plan.get("fingerprint", "")) if isinstance(plan, dict) else ""


def epoch_of(wheel: Path) -> int:
    """Seconds since 1970 that the layers carry: SOURCE_DATE_EPOCH, else the wheel's own newest member.

    A zip's months and days may be anything (0 is common); the first second of 1980 stands in for what is no date.
    """
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    if told.isdigit():
        return int(told)
    import calendar

    with Archive(wheel) as opened:
        newest = max((row.date_time for row in opened.rows), default=_YEAR_1980)
    try:
        return calendar.timegm((*newest, 0, 0, 0))
    except ValueError:
        return calendar.timegm((*_YEAR_1980, 0, 0, 0))


def write_context(folder: Path, made: Bundle, base: str, uv: Path, *, health: bool) -> None:
    """Write the Containerfile and the files that it binds; what lay there from another wheel goes."""
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    wanted = {name: path for name, (path, _) in made.files.items()} | {"uv": uv}
    for path in files.iterdir():
        if path.name not in wanted and path.name not in made.texts:
            path.unlink()
    for name, path in wanted.items():
        target = files / name
        if not target.exists() or target.stat().st_size != path.stat().st_size:
            target.unlink(missing_ok=True)
            try:
                os.link(path.resolve(), target)  # the context may be on another disk than the cache
            except OSError:
                shutil.copyfile(path, target)
    (files / "uv").chmod(0o755)
    for name, text in made.texts.items():
        write_atomic(files / name, text)
    write_atomic(folder / "Containerfile", containerfile(made, base, health=health))


def containerfile(made: Bundle, base: str, *, health: bool) -> str:
    """The text of the Containerfile."""
    bare = made.companions is None
    installed = installing("/files/uv", ENVIRONMENT, "/files", made.python, under=bare, toolkit=made.toolkit)
    commands = [
        shlex.join(["env", "UV_NO_CACHE=1", "UV_NO_CONFIG=1", "UV_LINK_MODE=copy", *words])
        for words in installed
    ]
    settings = {key: value.format(env=ENVIRONMENT) for key, value in made.settings.environment.items()}
    variables = {
        **settings,
        "PATH": f"{ENVIRONMENT}/bin:/usr/local/cuda/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": f"/home/{USER}",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }
    labels = {
        "org.opencontainers.image.title": f"vLLM {made.version} for {made.device.title}",
        "org.opencontainers.image.version": made.version,
        "org.opencontainers.image.base.name": base.partition("@")[0],
        "org.opencontainers.image.base.digest": base.partition("@")[2],
        "org.opencontainers.image.licenses": "Apache-2.0",
        "vllm-armory.device": made.device_name,
        "vllm-armory.wheel": made.wheel.name,
        "vllm-armory.wheel.sha256": next(iter(made.files.values()))[1],
        "vllm-armory.plan.fingerprint": fingerprint(made.wheel),
        "vllm-armory.companions": str(len(made.files) - 1),
    }
    shown = environment(__package__).overlay(autoescape=False).get_template("Containerfile")
    return shown.render(
        version=made.version, title=made.device.title, wheel=made.wheel.name, base=base, python=made.python,
        bare=bare, commands=commands,
        # the group of the GPU's device files is all that a container needs for them: no root. Ubuntu's images have
        # a user 1000 already, whose name differs; 1000 is also who owns a board's home, so its cache can be mounted
        user=[
            f"RUN getent passwd 1000 >/dev/null || useradd --no-log-init --uid 1000 {USER} \\",
            f' && usermod --append --groups video "$(id -nu 1000)" && install -d -o 1000 -g 1000 /home/{USER}',
            "USER 1000",
            f"WORKDIR /home/{USER}",
        ],
        environment=[(key, _quoted(value)) for key, value in sorted(variables.items())],
        labels=[(key, _quoted(value)) for key, value in sorted(labels.items()) if value],
        healthcheck=json.dumps([f"{ENVIRONMENT}/bin/python", "-c", HEALTH]) if health else "",
        entrypoint=json.dumps([f"{ENVIRONMENT}/bin/vllm", "serve", *made.settings.options]),
    )  # fmt: skip


def _quoted(value: str) -> str:
    """A value in a Containerfile: in double quotes, nothing expanded."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def show(done: Image) -> None:
    """What was made, and how it is run."""
    if not done.name:
        console.say(f"the context is in {done.context}", "bold")
        console.say(f"next  buildah build --tag vllm {shlex.quote(done.context)}")
        return
    console.say(
        f"{done.name}, {console.size(done.size)}, {done.digest}, in {console.duration(done.seconds)}", "bold"
    )
    console.say(f"  base {done.base}")
    console.say(f"next  {done.tool} push {done.name} REGISTRY/{done.name}")
    console.say(f"      docker run --runtime nvidia --ipc host -p 8000:8000 REGISTRY/{done.name} MODEL")
