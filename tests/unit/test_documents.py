"""What the documents show is true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.local.welcome import sdk_example

ROOT = Path(__file__).parents[2]


def test_readme_shows_the_example_that_is_printed_and_tested() -> None:
    """One example, in the README, on the screen of `friendo up`, and run word for word by a test."""
    assert sdk_example("http://127.0.0.1:7860") in (ROOT / "README.md").read_text()


def test_example_of_the_history_library_runs() -> None:
    """The second prompt holds the first turn."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "history/README.md").read_text(), re.DOTALL)
    assert code is not None

    ran = subprocess.run(
        [sys.executable, "-c", code.group(1)], capture_output=True, text=True, cwd=ROOT, check=True
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
