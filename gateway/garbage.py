"""The garbage collector of a process that serves: rounds that are rare, and short.

Python counts objects that may refer to each other and, every 700 of them, looks for rings that nobody can
reach; every so often it looks through all there is. A request makes hundreds of them and hardly ever a ring,
so with the usual numbers these rounds cost about one thirtieth of all CPU time.
"""

import gc

_YOUNG = 10_000


def settle_down() -> None:
    """Call it once when all is set up: what is there stays to the end and is looked through no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
