"""A shell command that trains, taken apart: variables, launcher, flags. Nothing is run."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from training.recipes.faults import BadCommand

MAX_CHARS = 20_000

Launcher = Literal["plain", "deepspeed", "accelerate", "torchrun"]
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_NUMBER = re.compile(r"-\d.*|-\.\d.*")
_PYTHON = re.compile(r"(.*/)?python[\d.]*")
_TORCHRUN_MODULES = frozenset({"torch.distributed.run", "torch.distributed.launch"})
_SHELL = frozenset({"&&", "||", "|", ";"})
_AROUND = frozenset({"nohup", "sudo", "exec", "time"})

Flags = tuple[tuple[str, str | None], ...]
"""Names without their hyphens, in order; None for a flag without a value."""


class OldCommand(msgspec.Struct, frozen=True):
    """What was said, in the order in which it was said."""

    variables: Mapping[str, str]
    launcher: Launcher
    launcher_flags: Flags
    flags: Flags
    file: str = ""
    """The YAML or JSON file that llamafactory-cli was given."""
    left: tuple[str, ...] = ()
    """Words that are none of all this."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files whose texts `translated` and `launch_of` can use, by their names in the command."""
        own = [value for name, value in self.launcher_flags if name == "config_file"]
        deepspeed = [value for name, value in self.flags if name == "deepspeed"]
        return tuple(name for name in (self.file, *own, *deepspeed) if name)


def taken_apart(command: str) -> OldCommand:
    """Raises BadCommand where it is none that trains, or several commands in one."""
    words, left = _words(command)
    variables: dict[str, str] = {}
    while words and (words[0] in _AROUND or words[0] == "env" or _VARIABLE.fullmatch(words[0])):
        name, is_variable, value = words[0].partition("=")
        if is_variable:
            variables[name] = value
        words = words[1:]
    launcher, own, rest = _launched(words)
    flags, file, stray = _arguments(rest)
    return OldCommand(variables, launcher, own, flags, file, (*left, *stray))


def _words(command: str) -> tuple[list[str], list[str]]:
    if len(command) > MAX_CHARS:
        raise BadCommand(f"the command is longer than {MAX_CHARS} characters")
    try:
        words = shlex.split(command.replace("\\\r\n", " ").replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise BadCommand(f"the command cannot be read as a shell's: {str(error).lower()}") from None
    if several := _SHELL.intersection(words):
        raise BadCommand(f"the command is several ({' '.join(sorted(several))}): give the one that trains")
    kept: list[str] = []
    left: list[str] = []
    for index, word in enumerate(words):
        after = index > 0 and re.fullmatch(r"[12&]?>>?", words[index - 1])
        (left if after or re.match(r"[12&]?>", word) or word == "&" else kept).append(word)
    return kept, left


def _launched(words: list[str]) -> tuple[Launcher, Flags, list[str]]:
    """What begins the processes, its own flags, and what stands behind the script."""
    program = words[0].rsplit("/", 1)[-1] if words else ""
    if program in {"deepspeed", "torchrun"}:
        return ("deepspeed" if program == "deepspeed" else "torchrun", *_until_script(words[1:]))
    if program == "accelerate" and words[1:2] == ["launch"]:
        return ("accelerate", *_until_script(words[2:]))
    if program in {"llamafactory-cli", "lmf"} and words[1:2] == ["train"]:
        return "plain", (), words[2:]
    if _PYTHON.fullmatch(program) and len(words) > 2 and words[1] == "-m":
        if words[2] in _TORCHRUN_MODULES:
            return ("torchrun", *_until_script(words[3:]))
        return "plain", (), words[3:]
    if _PYTHON.fullmatch(program) and len(words) > 1 and words[1].endswith(".py"):
        return "plain", (), words[2:]
    raise BadCommand(
        "the command begins with none of python SCRIPT.py, deepspeed, torchrun, accelerate launch and "
        "llamafactory-cli train"
    )


def _until_script(words: list[str]) -> tuple[Flags, list[str]]:
    for index, word in enumerate(words):
        if word.endswith(".py") and not word.startswith("-"):
            return _arguments(words[:index])[0], words[index + 1 :]
        if word in {"-m", "--module"}:
            return _arguments(words[:index])[0], words[index + 2 :]
    raise BadCommand("the command names no script (a word that ends with .py)")


def _arguments(words: Sequence[str]) -> tuple[Flags, str, tuple[str, ...]]:
    """Flags with their values (several are joined by commas), a settings file, and what is neither."""
    flags: list[tuple[str, str | None]] = []
    stray: list[str] = []
    file, open_flag = "", False
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, has_value, value = word[2:].partition("=")
            flags.append((name.replace("-", "_"), value if has_value else None))
            open_flag = not has_value
        elif word.startswith("-") and len(word) > 1 and not _NUMBER.fullmatch(word):
            flags.append((word[1:], None))
            open_flag = True
        elif open_flag:
            name, before = flags[-1]
            flags[-1] = (name, word if before is None else f"{before},{word}")
        elif not file and not flags and word.endswith((".yaml", ".yml", ".json")):
            file = word
        elif _VARIABLE.fullmatch(word):
            flags.append((word.partition("=")[0], word.partition("=")[2]))
        else:
            stray.append(word)
    return tuple(flags), file, tuple(stray)
