"""Make one image: ``one_image.py PTXAS FATBINARY KIND ARCH INPUT [ptxas options] -o OUTPUT.o``.

The broker's launcher starts it as it starts a compiler, so it imports little. ``assemble`` makes a cubin of PTX;
both kinds then pack the cubin into a fat binary. OUTPUT is written beside and renamed: it is whole or not there.
"""

import os
import sys


def main() -> int:
    ptxas, fatbinary, kind, arch, source, *options = sys.argv[1:-2]
    output = sys.argv[-1]
    code, packed = f"{output}.cubin", f"{output}.fatbin"
    try:
        if kind == "assemble":
            failed = _run(ptxas, f"-arch={arch}", *options, source, "-o", code)
            if failed:
                return failed
            source = code
        image = f"--image3=kind=elf,sm={arch[3:]},file={source}"
        failed = _run(fatbinary, "-64", "-compress-all", "-compress-mode=size", f"--create={packed}", image)
        if not failed:
            os.replace(packed, output)
        return failed
    finally:
        if os.path.exists(code):
            os.unlink(code)


def _run(*argv: str) -> int:
    _, status = os.waitpid(os.posix_spawn(argv[0], argv, os.environ), 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
