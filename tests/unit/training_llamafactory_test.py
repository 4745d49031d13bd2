"""Where LLaMA-Factory is looked for and what is said when it is not there."""

from pathlib import Path

import pytest

from training.llamafactory import INSTALL_COMMAND, LlamaFactory, default_folder


def test_it_is_looked_for_in_the_users_cache(tmp_path: Path) -> None:
    """XDG_CACHE_HOME if it is set and not empty, ~/.cache otherwise."""
    in_home = tmp_path / ".cache" / "friendo" / "llamafactory"

    assert in_home == default_folder({}, tmp_path)
    assert in_home == default_folder({"XDG_CACHE_HOME": ""}, tmp_path)
    assert Path("/x/friendo/llamafactory") == default_folder({"XDG_CACHE_HOME": "/x"}, tmp_path)


def installed(folder: Path, mode: int) -> Path:
    """A file where the program should be."""
    program = folder / "bin" / "llamafactory-cli"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(mode)
    return program


def test_an_executable_program_is_found(tmp_path: Path) -> None:
    """The environment counts as installed when its program can be run."""
    program = installed(tmp_path, 0o755)

    assert program == LlamaFactory(tmp_path, installed_in=tmp_path).cli()


def test_it_is_found_as_soon_as_it_is_installed(tmp_path: Path) -> None:
    """A worker need not be restarted for it."""
    trainer = LlamaFactory(tmp_path, installed_in=tmp_path)
    before = trainer.cli()
    program = installed(tmp_path, 0o755)

    assert (None, program) == (before, trainer.cli())


@pytest.mark.parametrize("kind", ["nothing", "folder", "not executable"])
def test_anything_else_is_missing(tmp_path: Path, kind: str) -> None:
    """A half-made environment is none."""
    if kind == "folder":
        (tmp_path / "bin" / "llamafactory-cli").mkdir(parents=True)
    if kind == "not executable":
        installed(tmp_path, 0o644)

    assert LlamaFactory(tmp_path, installed_in=tmp_path).cli() is None


def test_the_message_holds_the_place_and_the_command(tmp_path: Path) -> None:
    """A person can act on it without reading anything else."""
    message = LlamaFactory(tmp_path, installed_in=tmp_path).missing()

    assert str(tmp_path / "bin" / "llamafactory-cli") in message
    assert f"`{INSTALL_COMMAND}`" in message
    assert "--llamafactory" not in message


def test_a_folder_of_ones_own_is_told_apart_from_where_the_command_installs(tmp_path: Path) -> None:
    """Otherwise the command would succeed and the worker would still not find it."""
    message = LlamaFactory(tmp_path / "own", installed_in=tmp_path / "usual").missing()

    assert str(tmp_path / "usual") in message
    assert "--llamafactory" in message
