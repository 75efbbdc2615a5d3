"""Every way this program can say no: one class and one exit code per cause.

The text of an error says what happened and what was seen; ``advice`` is the next command to type or the
next step to take. The front door prints both and exits with ``exit_code``; a traceback is never shown for one
of these. Codes are stable: scripts may test them. 1 is left for bugs, 2 for usage (Invoke's own).
"""

from __future__ import annotations

import shlex
from typing import ClassVar


class ArmoryError(Exception):
    """Root of all errors a user can meet.

    :param message: what happened and what was seen.
    :param advice: the next step, one line, ideally a command.
    """

    exit_code: ClassVar[int] = 3
    advice: str

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.args[0]}\n  next: {self.advice}"


# -- what was asked ------------------------------------------------------------------------------


class UsageError(ArmoryError):
    """An option or its value makes no sense."""

    exit_code = 2


class UnknownTag(ArmoryError):
    """The vLLM tag does not exist; the message names the nearest ones."""

    exit_code = 10


class NotATag(ArmoryError):
    """A branch or a commit was given where a release tag is asked for."""

    exit_code = 11


class UnknownDevice(ArmoryError):
    """The device is not in devices.toml."""

    exit_code = 12


class ArchitectureMismatch(ArmoryError):
    """The architecture asked for is not the device's (9.0 is not Thor)."""

    exit_code = 13


class UnsupportedPair(ArmoryError):
    """This tag cannot work on this device, whatever is patched."""

    exit_code = 14


class BadData(ArmoryError):
    """A data file of the project (TOML, JSON) is broken or has an unknown key."""

    exit_code = 15


# -- sources -------------------------------------------------------------------------------------


class LockMissing(ArmoryError):
    """No lock for the tag, and it cannot be made now."""

    exit_code = 20


class LockEdited(ArmoryError):
    """The lock's content does not match its own digest."""

    exit_code = 21


class HashMismatch(ArmoryError):
    """A download differs from the hash in the lock."""

    exit_code = 22


class NetworkError(ArmoryError):
    """A host did not answer, or the connection broke more often than we retry."""

    exit_code = 23


class OfflineError(ArmoryError):
    """Something is not in the cache and the network is not to be used."""

    exit_code = 24


class RevisionMissing(ArmoryError):
    """A repository does not hold the pinned commit or tag. There is no fall back to HEAD."""

    exit_code = 25


class UnsafeArchive(ArmoryError):
    """An archive member would be written outside its folder, or more would come out than of any honest archive."""

    exit_code = 26


class DamagedArchive(UnsafeArchive):
    """An archive is damaged, cut short, or packed in a way that no reader takes."""

    exit_code = 28


class SourceIncomplete(ArmoryError):
    """An external source tree that the asked modules need is not there."""

    exit_code = 27


# -- patches -------------------------------------------------------------------------------------


class PatchConflict(ArmoryError):
    """A patch of the series does not apply to this tree."""

    exit_code = 30


class IntentLost(ArmoryError):
    """A patch applied, but the tree does not do what the patch is for."""

    exit_code = 31


class TreeModified(ArmoryError):
    """A source tree has changes that are not ours."""

    exit_code = 32


# -- host and toolchain --------------------------------------------------------------------------


class MissingPackages(ArmoryError):
    """Distribution packages are missing; the message names them."""

    exit_code = 40


class ToolchainMismatch(ArmoryError):
    """nvcc or the host compiler is too old, too new or absent."""

    exit_code = 41


class CpuTorch(ArmoryError):
    """The torch of the build environment has no CUDA."""

    exit_code = 42


class TorchCudaMismatch(ArmoryError):
    """torch was built for another CUDA major than the toolkit."""

    exit_code = 43


class NotEnoughDisk(ArmoryError):
    """Too little free space for the build tree or the wheel."""

    exit_code = 44


class NotEnoughMemory(ArmoryError):
    """A unit ran out of memory although it ran alone."""

    exit_code = 45


class NotWritable(ArmoryError):
    """A folder that must be written is read-only."""

    exit_code = 46


class TreeBusy(ArmoryError):
    """Another build works in the same build tree."""

    exit_code = 47


class GlibcTooNew(ArmoryError):
    """A wheel built on this machine would need a newer glibc than the device's system has."""

    exit_code = 48


class ToolFailed(ArmoryError):
    """A program that was asked something failed, or is not there."""

    exit_code = 49
    command: tuple[str, ...]
    code: int | None
    """Its exit status, negative for a signal; None where it could not be started."""
    words: str
    """What it said on stderr, or why it could not be started."""

    def __init__(self, command: tuple[str, ...], code: int | None, words: str) -> None:
        self.command, self.code, self.words = command, code, words.strip()
        ended = f"ended with {code}" if code is not None else "does not start"
        last = "".join(f"\n    {line}" for line in self.words.splitlines()[-8:])
        super().__init__(f"{command[0]} {ended}{last}", f"run it by hand: {shlex.join(command)}")


# -- compile -------------------------------------------------------------------------------------


class ConfigureFailed(ArmoryError):
    """CMake could not configure the tree."""

    exit_code = 50


class CompileFailed(ArmoryError):
    """A unit did not compile; the message holds its command and last lines."""

    exit_code = 51


class KilledByOom(ArmoryError):
    """A compiler ran out of memory, by the kernel's own count."""

    exit_code = 52


class UngatedUnits(ArmoryError):
    """CUDA units without -gencode: nvcc would compile them for its default architecture."""

    exit_code = 53


class Checkpointed(ArmoryError):
    """The time box ended; what is finished is kept, and the same command goes on."""

    exit_code = 54


class PackageFailed(ArmoryError):
    """The compiled modules could not be made into a wheel."""

    exit_code = 55


class CanaryFailed(ArmoryError):
    """The toolchain cannot build, load or run the canary, so it cannot build vLLM."""

    exit_code = 56


class UnloadableUnits(ArmoryError):
    """CUDA units whose code the device can neither load nor compile, seen before the first one is compiled."""

    exit_code = 57


# -- verdicts ------------------------------------------------------------------------------------


class AuditFailed(ArmoryError):
    """The wheel does not keep the promise of its plan."""

    exit_code = 60


class NotAWheel(DamagedArchive):
    """The file is not a vLLM wheel, or is damaged."""

    exit_code = 61


class OmniBreaks(ArmoryError):
    """vllm-omni would not import with this vLLM."""

    exit_code = 62


class CouldNotCheck(ArmoryError):
    """The question could not be answered (which is not a no)."""

    exit_code = 63


class DoctorBlocker(ArmoryError):
    """The doctor found something that stops a build or a run."""

    exit_code = 64


class FailureKnown(ArmoryError):
    """`diagnose`: the log shows a failure, and its cause is known."""

    exit_code = 65


class FailureUnknown(ArmoryError):
    """`diagnose`: the log shows a failure that no signature knows; the report to look at is shown."""

    exit_code = 66


class LogUnfinished(ArmoryError):
    """`diagnose`: the log reports no error, and does not end like a success or a running server either."""

    exit_code = 68


class QualifyFailed(ArmoryError):
    """A tier of the qualification failed on this machine."""

    exit_code = 67


class BoardFailed(ArmoryError):
    """A board could not be reached, is not fit for the wheel, or refused a step of the delivery."""

    exit_code = 80


class ImageFailed(ArmoryError):
    """The container image could not be built."""

    exit_code = 81


class RebuildDiffers(ArmoryError):
    """A wheel that was built again has other members; the message lists them."""

    exit_code = 69


# -- the night ------------------------------------------------------------------------------------


class NightBusy(ArmoryError):
    """Another night runs on this machine, or its results are being written by another process."""

    exit_code = 70


class NightFailed(ArmoryError):
    """At least one job of the night is red; the others were run all the same."""

    exit_code = 71
