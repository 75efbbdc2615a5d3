"""TOML and JSON data files read into frozen models that refuse unknown keys."""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import os
import stat
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from build_recipes.kit.errors import BadData

if TYPE_CHECKING:
    from collections.abc import Callable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import msgspec

T = TypeVar("T")


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every class that is loaded from a data file: frozen, keyword only, no unknown keys."""


def parse_toml(text: str) -> dict[str, Any]:
    """TOML text as plain data. Raises `ValueError` where it is no TOML, or nested too deeply."""
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return document


def parse_json(text: str | bytes) -> Any:
    """A JSON text as plain data. Raises `ValueError` where it is none, or nested too deeply."""
    try:
        return msgspec.json.decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def decoded(text: str | bytes, kind: type[T]) -> T:
    """A JSON text as a value of a type. Raises `ValueError` where it is none, or of another shape, or too deep."""
    try:
        return msgspec.json.decode(text, type=kind)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_python(text: str) -> ast.Module:
    """Python source as a tree. Raises `ValueError` where it is none, or nested too deeply for the parser."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes are the file's own affair
        try:
            return ast.parse(text)
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(str(error) or "it is nested too deeply") from error


def load_toml(
    path: Path,
    kind: type[T],
    hint: str = "correct the file, or restore it with git",
    prepare: Callable[[dict[str, Any]], Any] = lambda plain: plain,
) -> T:
    """Read ``path`` into ``kind``.

    :param prepare: changes the plain data first; a `ValueError` of it counts as broken data.
    :raises BadData: the file is absent, no TOML, or does not fit the model; the text says where.
    """
    return _load(path, kind, lambda text: prepare(parse_toml(text)), hint)


def load_json(path: Path, kind: type[T], hint: str = "remove the file; it is made again") -> T:
    """Read a JSON file into ``kind``; errors as `load_toml`."""
    return _load(path, kind, msgspec.json.decode, hint)


def open_regular(path: Path) -> BinaryIO:
    """Open a file that was named by somebody else for reading; never waits for the other end of a pipe.

    :raises OSError: it cannot be read, or is a folder, a pipe, a socket or a device.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(handle, "rb")


def _load(path: Path, kind: type[T], parse: Callable[[str], Any], hint: str) -> T:
    try:
        with open_regular(path) as stream:
            text = stream.read().decode("utf-8")
        return msgspec.convert(parse(text), kind)
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}", hint) from error
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BadData(f"{path} is not right: {error}", hint) from error


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that it is either whole or not there: beside, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = content.encode() if isinstance(content, str) else content
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


class _Sealed(Model, frozen=True):
    seal: str
    """SHA-256 of the content's bytes as they stand in the file."""
    content: msgspec.Raw


def seal(content: object) -> bytes:
    """Plain data or a `Model` as one line of JSON that can tell whether it is whole."""
    raw = msgspec.json.encode(content)
    return msgspec.json.encode(_Sealed(seal=hashlib.sha256(raw).hexdigest(), content=msgspec.Raw(raw)))


def unseal(line: bytes, kind: type[T]) -> T | None:
    """What `seal` was given; None where one byte of it is not as it was, or it does not fit ``kind``."""
    with contextlib.suppress(ValueError, RecursionError):
        sealed = msgspec.json.decode(line, type=_Sealed)
        if hashlib.sha256(sealed.content).hexdigest() == sealed.seal:
            return msgspec.json.decode(sealed.content, type=kind)
    return None


def write_sealed(path: Path, content: object) -> None:
    """Write data so that `read_sealed` can tell whether it is whole; the file is replaced in one step."""
    write_atomic(path, seal(content) + b"\n")


def read_sealed(path: Path, kind: type[T]) -> T | None:
    """Data that `write_sealed` wrote; None where it is not there or one byte of it is not as it was."""
    try:
        return unseal(path.read_bytes(), kind)
    except OSError:
        return None
