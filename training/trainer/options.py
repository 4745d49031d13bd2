"""What a worker is told on its command line and in its environment."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.llamafactory import default_folder
from training.redis_queue import queue_address

REDIS_VARIABLE = "FRIENDO_REDIS_URL"
FOLDER_VARIABLE = "FRIENDO_TRAINING_FOLDER"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the worker is told: where records, queue, LLaMA-Factory, its folder and the base models are."""

    redis: str
    queue_redis: str
    llamafactory: Path
    llamafactory_installed_in: Path
    folder: Path | None = None
    gpus: tuple[str, ...] = ()
    """Devices of this machine; none of them is the CPU."""
    models: Mapping[str, Path] = field(default_factory=dict)
    """Base models' folders by name."""


def settings_from(arguments: Sequence[str], environment: Mapping[str, str], home: Path) -> Settings:
    """Read the command line; a wrong one ends the process and says why."""
    installed_in = default_folder(environment, home)
    parser = argparse.ArgumentParser(prog="python -m training.worker", description="The training worker.")
    option = parser.add_argument
    option("--redis", metavar="URL", help=f"the job records; default: ${REDIS_VARIABLE}")
    option("--queue-redis", metavar="URL", help="the queue; default: another database of the same server")
    option("--llamafactory", metavar="DIR", type=Path, help=f"its environment; default: {installed_in}")
    option("--folder", metavar="DIR", type=Path, help=f"training.folder; default: ${FOLDER_VARIABLE}")
    option(
        "--gpus", metavar="0,1|cpu", type=gpus_named, help="default: every GPU, or cpu where there is none"
    )
    option(
        "--models", metavar="NAME=PATH", type=model_named, action="append", default=[], help="a base model"
    )
    given = parser.parse_args(arguments)
    records, apart = given.redis or environment.get(REDIS_VARIABLE), given.queue_redis
    if not records:
        parser.error(f"give --redis URL, or set {REDIS_VARIABLE}, which keeps passwords off the command line")
    try:
        queue = queue_address(apart, database=None) if apart else queue_address(records)
    except ValueError as error:
        parser.error(str(error))
    folder = given.folder or (
        Path(environment[FOLDER_VARIABLE]) if environment.get(FOLDER_VARIABLE) else None
    )
    return Settings(
        redis=records,
        queue_redis=queue,
        llamafactory=given.llamafactory or installed_in,
        llamafactory_installed_in=installed_in,
        folder=folder and folder.expanduser().absolute(),
        gpus=gpus_of(Path("/dev")) if given.gpus is None else given.gpus,
        models=dict(given.models),
    )


def gpus_named(text: str) -> tuple[str, ...]:
    """`0,1` or `cpu`; raises ArgumentTypeError."""
    names = tuple(name.strip() for name in text.split(","))
    if names == ("cpu",):
        return ()
    if len(set(names)) != len(names) or not all(name.isdecimal() for name in names):
        raise argparse.ArgumentTypeError(f"{text!r} is neither cpu nor numbers of GPUs as in 0,1")
    return names


def gpus_of(devices: Path) -> tuple[str, ...]:
    """The NVIDIA GPUs that have a device file."""
    numbers = (path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*"))
    return tuple(sorted((number for number in numbers if number.isdecimal()), key=int))


def model_named(text: str) -> tuple[str, Path]:
    """`NAME=PATH`; raises ArgumentTypeError."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, Path(path).expanduser().absolute()
