"""What the documents show is true."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.api.envelope import envelope
from gateway.errors import NodeFault, OutOfTime
from gateway.local.welcome import curl_example, sdk_example
from history.errors import ConversationFull, QuotaExceeded
from tests.trainers.rooms import Pretended, a_job, workshop
from training.llamafactory import LlamaFactory
from training.retrain import folder_for
from training.trainer.claim import Failed

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("example", [sdk_example, curl_example])
def test_readme_shows_the_examples_that_are_printed_and_tested(example: Callable[[str], str]) -> None:
    """The same in the README, on the screen of `friendo up`, and run word for word by a test."""
    assert example("http://127.0.0.1:7860") in (ROOT / "README.md").read_text()


def test_readme_says_of_training_what_a_job_ends_with(tmp_path: Path) -> None:
    """Where LLaMA-Factory is missing and where it is installed; both in the one sentence."""
    program = tmp_path / "bin" / "llamafactory-cli"
    trainer = LlamaFactory(tmp_path, installed_in=tmp_path)
    shop = dataclasses.replace(workshop(tmp_path, Pretended()), trainer=trainer, folder=None)
    with pytest.raises(Failed) as without:
        folder_for(a_job(), shop)
    program.parent.mkdir()
    program.touch(mode=0o700)
    with pytest.raises(Failed) as with_it:
        folder_for(a_job(), shop)
    text = " ".join((ROOT / "README.md").read_text().split())
    sentence = re.search(r"submits a training job\. .*?\)\. ", text)

    assert sentence is not None
    reasons = (without.value.error, with_it.value.error)
    assert ["llamafactory_missing", "folder_missing"] == [reason.code for reason in reasons]
    for said, reason in zip(("`make llamafactory`", "FRIENDO_TRAINING_FOLDER"), reasons, strict=True):
        assert said in sentence.group()
        assert said in reason.message


def test_example_of_the_history_library_runs() -> None:
    """The second prompt holds the first turn."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "history/README.md").read_text(), re.DOTALL)
    assert code is not None

    ran = subprocess.run(
        [sys.executable, "-c", code.group(1)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=True,
    )

    first, second = ran.stdout.splitlines()
    assert second.startswith(first.removesuffix("]"))
    assert "Who am I?" in second


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_links_to_files_lead_somewhere(document: str) -> None:
    """No document points at what does not exist."""
    path = ROOT / document
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text())

    assert [] == [link for link in links if "://" not in link and not (path.parent / link).exists()]


@pytest.mark.parametrize("fault", [ConversationFull("x"), QuotaExceeded("x"), NodeFault("x"), OutOfTime(1.0)])
def test_fault_table_names_what_clients_see(fault: Exception) -> None:
    """Status and code together, in one of the table's rows."""
    shown = envelope(fault)
    rows = [line for line in (ROOT / "docs/faults.md").read_text().splitlines() if line.startswith("| ")]

    assert [row for row in rows if f" {shown.status} `{shown.code}`" in row]
