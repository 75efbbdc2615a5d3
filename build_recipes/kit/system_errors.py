"""What a failed system call means to a user: an `OSError` as an error of this program."""

from __future__ import annotations

import errno
import re

from build_recipes.kit.errors import ArmoryError, NotEnoughDisk, NotWritable, UsageError


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or one that caused it, is a full disk: by number, or in the words of a tool."""
    texts: BaseException | None = error
    while texts is not None:
        if isinstance(texts, OSError) and texts.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if re.search(r"No space left on device|[Dd]isk quota exceeded|\(os error 28\)", str(texts)):
            return True  # a compiler's log; `shutil.Error` has no errno and a list of texts
        texts = texts.__cause__ or texts.__context__
    return False


def of_system(error: OSError) -> ArmoryError | None:
    """What a failed system call means to a user; None where it is a bug of ours.

    Stages check disks and folders before they start; this is for a disk that fills up meanwhile.
    """
    place = str(error.filename2 or error.filename or "a file")[:300]
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO) and error.filename:
        return UsageError(f"{place} cannot be used: {error.strerror}", "give the path of a file or folder")
    if disk_is_full(error):
        return NotEnoughDisk(
            f"the disk filled up ({place})",
            "make room, then run the same command again: what is finished is kept",
        )
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return NotWritable(f"{place} is in the way: {error.strerror}", f"mv {place} {place}.old")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return NotWritable(
            f"{place} cannot be used: {error.strerror}",
            "correct its permissions, then run the same command again",
        )
    return None
