"""How soon, and how often, a part that died is started again."""

WITHIN_S = 60.0
AT_MOST = 5
FIRST_DELAY_S = 0.2


def delay_before_restart(deaths: tuple[float, ...]) -> float | None:
    """Seconds to wait, or None to give up.

    `deaths` are the times, in seconds and oldest first, the newest being now. The wait doubles with every
    death of the last minute; after five restarts within a minute another one would not help.
    """
    recent = [at for at in deaths if at > deaths[-1] - WITHIN_S]
    if len(recent) > AT_MOST:
        return None
    return float(FIRST_DELAY_S * 2 ** (len(recent) - 1))
