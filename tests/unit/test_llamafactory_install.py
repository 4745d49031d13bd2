"""What `make llamafactory` installs, and that it never leaves half an environment where the worker looks."""

import re
from pathlib import Path

import pytest

from locks.cpu_environment import TORCH, locked
from locks.install_llamafactory import EVERYTHING_ELSE, linked
from locks.linked_folder import alone, digest

PINNED = re.compile(r"^([\w.-]+)==[\w.+!]+", flags=re.MULTILINE)
FIRST, SECOND = "llamafactory-0123456789", "llamafactory-abcdefabcd"


def build(environment: Path) -> None:
    """A whole environment, as far as the worker looks."""
    (environment / "bin").mkdir(parents=True)
    for name in ("python", "llamafactory-cli"):
        (environment / "bin" / name).write_text(environment.name)
        (environment / "bin" / name).chmod(0o755)


def interrupted(environment: Path) -> None:
    """Half of one."""
    build(environment)
    raise KeyboardInterrupt


def must_not_run(environment: Path) -> None:
    """There is nothing to build."""
    raise AssertionError(environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the environment belongs."""
    return tmp_path / "llamafactory"


def made_of(folder: Path) -> str:
    """Which environment the folder leads to."""
    return (folder / "bin" / "llamafactory-cli").read_text()


def requirements(lock: Path) -> list[str]:
    """Everything in a lock that is neither a comment nor a hash."""
    lines = (text.split("\\")[0].strip() for text in lock.read_text().splitlines())
    return [text for text in lines if text and not text.startswith(("#", "--hash="))]


def test_every_package_but_torch_is_pinned_with_a_hash() -> None:
    """An installation gets the bytes that were locked."""
    packages = re.split(r"^(?=\S)", EVERYTHING_ELSE.read_text(), flags=re.MULTILINE)[1:]
    assert len(packages) == locked(EVERYTHING_ELSE.read_text())
    assert [package for package in packages if not PINNED.match(package)] == []
    assert [package for package in packages if "--hash=sha256:" not in package] == []


def test_torch_is_pinned_to_the_build_for_the_cpu() -> None:
    """Without "+cpu" pip would take the registry's build for CUDA on Linux."""
    assert requirements(TORCH) == [
        'torch==2.13.0+cpu ; sys_platform == "linux"',
        'torch==2.13.0 ; sys_platform != "linux"',
    ]


def test_the_lock_holds_llamafactory_and_neither_torch_nor_its_cuda() -> None:
    """Torch comes from its own file, and torchvision breaks LLaMA-Factory on a CPU."""
    names = set(PINNED.findall(EVERYTHING_ELSE.read_text()))
    assert {"llamafactory", "transformers", "peft", "trl", "accelerate", "datasets", "torchaudio"} <= names
    assert {"sympy", "networkx", "jinja2", "filelock", "fsspec"} <= names  # what torch itself asks for
    assert {name for name in names if re.match(r"torch$|torchvision$|nvidia|triton|cuda", name)} == set()


def test_a_whole_environment_is_reused(folder: Path) -> None:
    """The second call has nothing to do."""
    linked(folder).publish(FIRST, build=build)
    linked(folder).publish(FIRST, build=must_not_run)
    assert made_of(folder) == FIRST


def test_a_changed_lock_makes_a_new_environment_and_the_next_run_removes_the_old(folder: Path) -> None:
    """A job that runs in the old one finishes there."""
    linked(folder).publish(FIRST, build=build)
    linked(folder).publish(SECOND, build=build)
    assert (SECOND, True) == (made_of(folder), folder.with_name(FIRST).exists())

    linked(folder).publish(SECOND, build=must_not_run)
    assert (SECOND, False) == (made_of(folder), folder.with_name(FIRST).exists())


def test_an_interrupted_installation_leaves_what_was_there(folder: Path) -> None:
    """First nothing, later the environment of before; and the half one is built anew."""
    with pytest.raises(KeyboardInterrupt):
        linked(folder).publish(FIRST, build=interrupted)
    assert not folder.exists()

    linked(folder).publish(FIRST, build=build)
    with pytest.raises(KeyboardInterrupt):
        linked(folder).publish(SECOND, build=interrupted)
    assert made_of(folder) == FIRST

    linked(folder).publish(SECOND, build=build)
    assert made_of(folder) == SECOND


@pytest.mark.parametrize("lost", ["python", "llamafactory-cli"])
def test_an_environment_that_lost_a_part_is_made_again(folder: Path, lost: str) -> None:
    """The interpreter that it was made with may be gone."""
    linked(folder).publish(FIRST, build=build)
    (folder / "bin" / lost).unlink()

    def again(environment: Path) -> None:
        assert not folder.exists()
        (environment / "bin" / lost).write_text("new")
        (environment / "bin" / lost).chmod(0o755)

    linked(folder).publish(FIRST, build=again)
    assert (folder / "bin" / lost).read_text() == "new"


def test_what_somebody_else_made_is_not_touched(folder: Path) -> None:
    """Neither an environment of their own nor a neighbour with a similar name."""
    neighbour = folder.with_name("llamafactory-notes")
    neighbour.mkdir()
    linked(folder).publish(FIRST, build=build)
    assert neighbour.exists()

    own = folder.with_name("own")
    own.mkdir()
    with pytest.raises(SystemExit, match="move it away"):
        linked(own).publish("own-0123456789", build=must_not_run)


def test_two_installations_at_once_are_refused(tmp_path: Path) -> None:
    """They would unpack into the same folder."""
    lock = tmp_path / "llamafactory.lock"
    with (
        alone(lock, "make it"),
        pytest.raises(SystemExit, match="make it is at work"),
        alone(lock, "make it"),
    ):
        pass
    with alone(lock, "make it"):
        assert lock.exists()


def test_the_digest_follows_the_locks(tmp_path: Path) -> None:
    """A changed line is another environment."""
    lock = tmp_path / "lock.txt"
    lock.write_text("a==1\n")
    before = digest((lock,))
    lock.write_text("a==2\n")
    assert re.fullmatch(r"[0-9a-f]{10}", before)
    assert before != digest((lock,))
