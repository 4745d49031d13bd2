"""Which configuration file counts."""

from pathlib import Path

import pytest

from gateway.config_file import ConfigNotFound, config_path


def test_the_file_is_chosen_by_runtime_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dev` where nothing is said; the current directory comes before the program's own."""
    folder = tmp_path / "config"
    folder.mkdir()
    for name in ("dev", "prod", "dev-2"):
        (folder / f"{name}.yaml").write_text("")
    monkeypatch.chdir(tmp_path)

    assert folder / "dev.yaml" == config_path({})
    assert folder / "dev.yaml" == config_path({"RUNTIME_ENV": ""})
    assert folder / "prod.yaml" == config_path({"RUNTIME_ENV": "prod"})


@pytest.mark.parametrize("name", ["../secrets", "a/b", "nowhere", "dev.yaml"])
def test_an_environment_without_a_file_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text names it; a name cannot lead out of the folder."""
    (tmp_path / "secrets.yaml").write_text("")
    (tmp_path / "config").mkdir()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigNotFound, match="RUNTIME_ENV"):
        config_path({"RUNTIME_ENV": name})
