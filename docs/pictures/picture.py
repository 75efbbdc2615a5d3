"""What a terminal of 80 columns shows of a command, as a picture: its real output, coloured as it was.

usage: .venv/bin/python docs/pictures/picture.py OUT.svg COMMAND [WORD...]
       ... --until TEXT OUT.svg COMMAND [WORD...]    the screen as it is when TEXT first appears; then Ctrl-C
"""

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, LINES = 80, 50


def output(words: list[str], until: str) -> str:
    """What a command prints into a terminal."""
    child, terminal = pty.fork()
    if not child:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(LINES))
        os.execvp(words[0], words)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    seen = b""
    while True:
        try:
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 65536)
        except OSError:  # the end of a terminal
            break
        if until and until.encode() in seen:
            os.kill(child, signal.SIGINT)
            break
    os.waitpid(child, 0)
    return seen.decode(errors="replace")


def screen(text: str) -> str:
    """The lines as they stand: what a carriage return, or a cursor that went up, wrote over is gone."""
    lines: list[str] = [""]
    row = 0
    for part in re.split(r"(\r\n|\n|\r|\x1b\[\d*A|\x1b\[\??\d*[hlKJ])", text):
        if part in ("\r\n", "\n"):
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r" or part.endswith(("K", "J")):
            lines[row] = "" if part != "\x1b[J" else lines[row]
        elif part.startswith("\x1b[") and part.endswith("A"):
            row = max(0, row - int(part[2:-1] or 1))
        elif not (part.startswith("\x1b[") and part[-1:] in "hl"):
            lines[row] += part
    return "\n".join(lines).strip("\n")


def main() -> None:
    arguments = sys.argv[1:]
    until = arguments[1] if arguments[0] == "--until" else ""
    out, *words = arguments[2:] if until else arguments
    shown = Text.from_ansi(f"$ {' '.join(words)}\n" + screen(output(words, until)))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(shown, soft_wrap=False)
    picture = console.export_svg(title=" ".join(words[:2]))
    picture = re.sub(
        r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL
    )  # a page loads no font of another site
    Path(out).write_text(picture)


if __name__ == "__main__":
    main()
