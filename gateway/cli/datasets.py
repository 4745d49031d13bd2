"""`friendo datasets`: datasets for training out of stored dialogues, and a look at files from elsewhere.

It talks to the store directly, by the settings of `friendo serve`, and only reads. The folder of the new
dataset goes to standard output alone; everything else goes beside it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.conversations import Redis, Tenant, reported

datasets = typer.Typer(
    help="Datasets: make them of dialogues, check files for training.", no_args_is_help=True
)

_Out = Annotated[Path, typer.Option(help="Where the dataset's own folder goes: training.folder/datasets.")]
_From = Annotated[
    Path | None,
    typer.Option("--file", help="A file of `friendo conversations export`, not the store.", dir_okay=False),
]
_Form = Annotated[str, typer.Option(help="sharegpt, or alpaca.")]
_Liked = Annotated[bool, typer.Option("--only-liked", help="Only answers with a thumbs up.")]
_Pairs = Annotated[str, typer.Option(help="Preference pairs: all, rated, none.")]
_Cap = Annotated[int, typer.Option(min=0, help="Examples of one user; 0: no cap.")]
_Share = Annotated[float, typer.Option(min=0, max=0.9, help="Users that are held out, as a share.")]
_Personal = Annotated[str, typer.Option(help="Secrets and personal data: redact, drop, keep.")]
_Near = Annotated[
    float, typer.Option(min=0, max=1, help="Dialogues that are so alike count once; 0: all do.")
]
_Lost = Annotated[str, typer.Option(help="Prompts whose memory is no longer stored: keep, leave_out.")]
_Without = Annotated[
    list[Path] | None,
    typer.Option("--without", help="An evaluation to share no text with; repeat it.", dir_okay=False),
]


@datasets.command()
def export(  # noqa: PLR0913 - each is an option of the command
    *,
    out: _Out,
    tenant: Tenant = "default",
    redis: Redis = None,
    file: _From = None,
    form: _Form = "sharegpt",
    only_liked: _Liked = False,
    pairs: _Pairs = "all",
    max_per_user: _Cap = 1000,
    eval_share: _Share = 0.05,
    personal: _Personal = "redact",
    near: _Near = 0.85,
    lost_memory: _Lost = "keep",
    without: _Without = None,
) -> None:
    """Make a dataset of the dialogues whose users agreed: metadata `training_consent` is "true".

    Each answer is one example with its prompt as it was served. Prints the dataset's folder; its name is
    the id that a job's training file may be.
    """
    from gateway.cli.datasets_export import Order, exported, rules_of

    with reported(), _told():
        rules = rules_of(
            form=form,
            only_liked=only_liked,
            pairs=pairs,
            max_per_user=max_per_user,
            eval_share=eval_share,
            personal=personal,
            near=near,
            lost_memory=lost_memory,
        )
        order = Order(tenant, redis, file, out, tuple(without or ()), rules)
        _shown(*exported(order))


def _shown(folder: Path, examples: int) -> None:
    print(folder)
    if not examples:
        print("No example is in it; the table says why.", file=sys.stderr)
        raise typer.Exit(1)


@datasets.command()
def check(
    file: Annotated[
        Path, typer.Argument(help="A file for training: JSON lines, or a JSON array.", dir_okay=False)
    ],
) -> None:
    """Say what is wrong with a file, record by record; 1 if something is.

    It knows OpenAI's chat and preference records, ShareGPT and Alpaca. What a job would mend by itself is
    said, too, and is nothing wrong.
    """
    from training.datasets.checking import check_file
    from training.datasets.job_datasets import UPLOADED

    with reported():
        report = check_file(file, UPLOADED)
    for note in report.notes:
        print(f"mended: {note}", file=sys.stderr)
    for problem in report.problems:
        print(problem)
    if report.problems:
        raise typer.Exit(1)
    print(f"{file.name}: {report.records} records of the form {report.shape}, all can be trained on")


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong with a dataset is told in its own words, a line for each problem."""
    from training.errors import BadDataset

    try:
        yield
    except BadDataset as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        raise typer.Exit(1) from None
