"""What a shell is offered for the word that is being typed: commands, options, devices, tags, wheels."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from invoke.parser.context import ParserContext

BASH = r"""_armory() {
    local IFS=$'\n'
    local words="$(printf '%q ' "${COMP_WORDS[@]:0:COMP_CWORD}")"
    COMPREPLY=($(compgen -W "$("$1" --complete -- "$words" 2>/dev/null)" -- "$2"))
}
complete -o default -F _armory inv armory
"""
ZSH = """_armory() {
    local found=("${(@f)$($words[1] --complete -- "${(j: :)${(@q)words[1,CURRENT-1]}}" 2>/dev/null)}")
    compadd -a found || _files
}
compdef _armory inv armory
"""
FISH = """function __armory
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    $words[1] --complete -- (string join -- ' ' (string escape -- $words)) 2>/dev/null
end
complete --command inv --arguments '(__armory)'
complete --command armory --arguments '(__armory)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
"""Each shell's script; `source <(./inv --print-completion-script bash)` reads it."""


def candidates(typed: str, commands: Mapping[str, ParserContext]) -> list[str]:
    """The words that may come next.

    :param typed: the words before, the program's own first, as a shell quotes them.
    """
    try:
        words = shlex.split(typed)[1:]
    except ValueError:
        return []
    named = next((word for word in words if word in commands), "")
    if not named:
        return sorted(commands)
    context = commands[named]
    last = context.flags.get(words[-1]) if words[-1] in context.flags else None
    if last is not None and last.takes_value:
        return values(last.names[0])
    flags = [flag for flag in context.flags if flag.startswith("--")]
    place = next(iter(context.positional_args), None)
    return [*(values(place.names[0]) if place and words[-1] == named else []), *flags]


def values(option: str) -> list[str]:
    """Values of an option that are known: devices, tags with a lock, wheels in wheels/, and the like."""
    if option == "device":
        from build_recipes.facts import device

        return list(device.devices())
    if option in ("tag", "diff", "against"):
        from build_recipes.kit import paths

        return sorted({file.stem for folder in paths.lock_folders() for file in folder.glob("v*.toml")})
    if option in ("wheel", "source", "vllm"):
        from build_recipes.kit.paths import Places

        folder = Places.from_environment().wheels
        found = sorted(str(file) for file in folder.glob("*.whl"))
        return [*found, *(["sdist", "git"] if option == "source" else [])]
    return {
        "cache": ["auto", "ccache", "sccache", "off"],
        "build-type": ["Release", "RelWithDebInfo", "Debug"],
    }.get(option, [])
