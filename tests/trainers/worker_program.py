"""The real worker process, with pretended datasets and recipes: `worker_program.py STEPS STEP_S OPTION...`.

A dependency of funboost installs a package `tests`: what lies beside this file is named without it.
"""

import asyncio
import dataclasses
import logging
import os
import sys
from pathlib import Path

import redis.asyncio
from rooms import QUICK, Forty, Installed, Pretended

from training.llamafactory import LlamaFactory
from training.redis_gpus import RedisGpus
from training.trainer.equipment import equipped
from training.trainer.options import Settings, settings_from
from training.trainer.processes import Processes
from training.trainer.workshop import Workshop
from training.worker import serve

LEASE_S = 1.0


def equip(settings: Settings, records: "redis.asyncio.Redis", trainer: LlamaFactory) -> Workshop:
    assert settings.folder is not None
    return dataclasses.replace(
        equipped(settings, records, trainer),
        datasets=Forty(),
        recipes=Pretended(int(sys.argv[1]), step_s=sys.argv[2]),
        evaluator=None,
        trainer=Installed(),
        gpus=RedisGpus(records, seconds=LEASE_S),
        runs=Processes(settings.folder / "locks", (), grace_s=2, patience_s=5),
        patience=QUICK,
    )


logging.basicConfig(stream=sys.stderr, level=logging.INFO)
asyncio.run(serve(settings_from(sys.argv[3:], os.environ, Path.home()), equip=equip))
os._exit(0)
