"""`friendo conversations`: look at dialogues, write them out, erase them, bring them in, sweep up.

It talks to the store directly, by the settings of `friendo serve`; the gateways may go on meanwhile. What is
exported goes to standard output alone; everything else goes beside it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

conversations = typer.Typer(
    help="Conversations: show, export, erase, import and count them.", no_args_is_help=True
)

Redis = Annotated[
    str | None, typer.Option("--redis", metavar="URL", help="The gateways' Redis.", show_default="store.url")
]
Tenant = Annotated[str, typer.Option(help="Whose conversations they are.")]
_Id = Annotated[str | None, typer.Argument(metavar="ID", help="The conversation's id.")]
_User = Annotated[str | None, typer.Option(help="All conversations of this user, instead of one.")]


@conversations.command()
def show(
    conversation_id: Annotated[str, typer.Argument(metavar="ID", help="The conversation's id.")],
    tenant: Tenant = "default",
    turns: Annotated[int, typer.Option(min=0, max=1000, help="How many of the last turns.")] = 5,
    redis: Redis = None,
) -> None:
    """Show what is kept of a conversation, and its last turns."""
    from gateway.cli.conversation_store import opened

    async def shown() -> list[str]:
        from gateway.cli.conversation_text import described

        async with opened(redis) as store:
            return await described(store.store, tenant, conversation_id, turns)

    with reported():
        for line in asyncio.run(shown()):
            print(line)


@conversations.command()
def export(
    conversation_id: _Id = None,
    *,
    user: _User = None,
    tenant: Tenant = "default",
    branches: Annotated[bool, typer.Option("--branches", help="Replaced turns as well.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; else to the screen.")] = None,
    redis: Redis = None,
) -> None:
    """Write out a conversation, or all of a user, as JSON lines: a head, then a line for each turn."""
    from gateway.cli.conversation_store import opened
    from history.conversation import ConversationKey
    from history.export import exported, exported_user

    check_one(conversation_id, user)

    async def write() -> int:
        async with opened(redis) as store:
            if user is not None:
                lines = exported_user(store.store, tenant, user, branches=branches)
            else:
                key = ConversationKey(tenant, conversation_id or "")
                lines = exported(store.store, key, branches=branches)
            with _sink(output) as sink:
                return await _written(lines, sink)

    with reported():
        count = asyncio.run(write())
    print(f"{count} lines", file=sys.stderr)


@conversations.command()
def erase(
    conversation_id: _Id = None,
    *,
    user: _User = None,
    tenant: Tenant = "default",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    redis: Redis = None,
) -> None:
    """Erase a conversation, or all of a user, and look through every key for what might be left."""
    from gateway.cli.conversation_erase import erased

    check_one(conversation_id, user)
    what = f"all conversations of user {user!r}" if user is not None else f"conversation {conversation_id!r}"
    if not yes:
        typer.confirm(f"Erase {what} of tenant {tenant!r}? Nothing brings it back", abort=True)
    with reported():
        proof = asyncio.run(erased(redis, tenant, conversation_id, user))
    print(f"Erased {proof.erased} conversation(s). {proof.looked_at} keys were looked at.", file=sys.stderr)
    if proof.left:
        print(f"{proof.left} keys are left: somebody has written to it since.", file=sys.stderr)
        raise typer.Exit(1)
    print("Nothing of it is left.", file=sys.stderr)


@conversations.command()
def sweep(
    *,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only look; change nothing.")] = False,
    even_if_empty: Annotated[
        bool, typer.Option("--even-if-empty", help="Clear the archive of a store without conversations, too.")
    ] = False,
    redis: Redis = None,
) -> None:
    """Count what each tenant has, and clear the archive of what expired (`archive.keep_days`)."""
    from gateway.cli.conversation_sweep import swept, told

    with reported():
        for line in told(asyncio.run(swept(redis, dry=dry, even_if_empty=even_if_empty)), dry=dry):
            print(line)


@conversations.command("import")
def import_(  # noqa: PLR0913 - each is an option of the command
    files: Annotated[list[Path] | None, typer.Argument(help="Files of dialogues.", dir_okay=False)] = None,
    *,
    tenant: Tenant = "default",
    user: Annotated[str, typer.Option(help="Whose they will be; else as the file says.")] = "",
    character: Annotated[str, typer.Option(help="The character's name in the store.")] = "",
    conversation_id: Annotated[str, typer.Option("--id", help="The id of the only dialogue.")] = "",
    card: Annotated[Path | None, typer.Option(help="A character card: JSON or PNG.", dir_okay=False)] = None,
    user_name: Annotated[str, typer.Option(help="What the card's greetings call the user.")] = "",
    skip_wrong: Annotated[bool, typer.Option("--skip-wrong", help="Leave out lines that are wrong.")] = False,
    redis: Redis = None,
) -> None:
    """Bring in dialogues: our own exports, JSON lines of items or messages, SillyTavern's chats, cards.

    Stopped half-way, the same command goes on where it stopped; imported twice, nothing is doubled.
    """
    from gateway.cli.conversation_import import Order, imported

    if not files and card is None:
        raise typer.BadParameter("name a file, or a card with --card")
    order = Order(
        files=tuple(files or ()),
        tenant=tenant,
        user=user,
        character=character,
        id=conversation_id,
        card=card,
        user_name=user_name,
        skip_wrong=skip_wrong,
    )
    with reported():
        is_whole = asyncio.run(imported(redis, order))
    if not is_whole:
        raise typer.Exit(1)


def check_one(conversation_id: str | None, user: str | None) -> None:
    """Raise unless exactly one of them is given."""
    if (conversation_id is None) is (user is None):
        raise typer.BadParameter("name a conversation's id, or a user with --user")


@contextmanager
def reported() -> Iterator[None]:
    """What goes wrong on purpose is told in its own words, without a traceback."""
    from redis.exceptions import RedisError

    from gateway.errors import GatewayError
    from history.errors import ConversationNotFound, HistoryError
    from history.redis_client import reason

    try:
        yield
    except ConversationNotFound as error:
        print(f"there is no conversation {str(error)!r}", file=sys.stderr)
        raise typer.Exit(1) from None
    except (GatewayError, HistoryError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    except RedisError as error:
        print(f"the store did not answer: {reason(error)}", file=sys.stderr)
        raise typer.Exit(1) from None


@contextmanager
def _sink(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        return
    with path.open("wb") as file:
        yield file


async def _written(lines: AsyncIterator[bytes], sink: BinaryIO) -> int:
    count = 0
    async for line in lines:
        sink.write(line)
        count += 1
    return count
