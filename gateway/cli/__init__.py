"""The command `friendo`: one file per command, one line here for each.

A command's file imports nothing heavy at its head; what the command needs it imports when it runs, so that
`friendo --help` stays quick.
"""

import typer

from gateway.cli.advise import advise
from gateway.cli.check_config import check_config
from gateway.cli.conversations import conversations
from gateway.cli.datasets import datasets
from gateway.cli.keys import keys
from gateway.cli.nodes import nodes
from gateway.cli.recipes import recipes
from gateway.cli.rollout import rollout
from gateway.cli.serve import serve
from gateway.cli.train import train
from gateway.cli.up import up
from gateway.cli.worker import worker

app = typer.Typer(
    name="friendo",
    help="An OpenAI-compatible gateway for virtual companions, over your own nodes.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


@app.callback()
def friendo() -> None:
    """Keep every command a subcommand, even where there is only one."""


app.command()(up)
app.command()(serve)
app.command()(worker)
app.command()(advise)
app.command()(train)
app.command("check-config")(check_config)
app.add_typer(keys, name="keys")
app.add_typer(nodes, name="nodes")
app.add_typer(recipes, name="recipes")
app.add_typer(rollout, name="rollout")
app.add_typer(conversations, name="conversations")
app.add_typer(datasets, name="datasets")
