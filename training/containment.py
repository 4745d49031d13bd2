"""Keeps an import that changes the whole process from changing it: what it replaced is put back afterwards.

funboost and its logging package replace methods of `logging.Logger` and `sys.excepthook`, put themselves on
`sys.path`, add handlers to the root logger and to thirty others, and greet on standard output. The worker's
standard output is an interface (one line of JSON when it is ready), and its log is its own.
"""

import builtins
import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def contained(settings: Path, environment: Mapping[str, str], *, logs_variable: str) -> Iterator[None]:
    """For the time of one import: `settings` is importable, `environment` is set, standard output is silent.

    Under the name `logs_variable` the environment also holds a folder for log files, gone afterwards.
    """
    with contextlib.ExitStack() as stack:
        logs = stack.enter_context(tempfile.TemporaryDirectory(prefix="friendo-import-"))
        stack.enter_context(_set_variables({**environment, logs_variable: logs}))
        stack.enter_context(silent())
        stack.enter_context(_kept_logging())
        stack.enter_context(_kept_interpreter())
        sys.path.append(str(settings))
        yield


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing that is printed meanwhile reaches standard output."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextlib.contextmanager
def _set_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """The variables are in the environment only meanwhile: the address holds a password."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _kept_interpreter() -> Iterator[None]:
    path, hook, write = list(sys.path), sys.excepthook, builtins.print
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.path[:] = path
        sys.excepthook = hook
        builtins.print = write


@contextlib.contextmanager
def _kept_logging() -> Iterator[None]:
    """Loggers that the import made lose their handlers, so that their messages go to the root logger's."""
    root = logging.getLogger()
    handlers, level, known = list(root.handlers), root.level, set(root.manager.loggerDict)
    replaced = ("callHandlers", "addHandler", "setLevel")
    methods = {name: getattr(logging.Logger, name) for name in replaced}
    try:
        yield
    finally:
        for name, method in methods.items():
            setattr(logging.Logger, name, method)
        root.handlers[:] = handlers
        root.setLevel(level)
        for name in set(root.manager.loggerDict) - known:
            logger = logging.getLogger(name)
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
                handler.close()
            logger.setLevel(max(logger.level, logging.WARNING))
