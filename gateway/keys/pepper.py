"""The pepper: the one secret behind the digests of all keys. Whoever changes it makes every key invalid."""

from collections.abc import Mapping

from gateway.keys.errors import BadPepper

PEPPER_VARIABLE = "FRIENDO_KEY_PEPPER"
MIN_PEPPER_BYTES = 32
_HOW_TO = (
    'Make one with  python3 -c "import secrets; print(secrets.token_urlsafe(32))"  and keep it: '
    f"put it into {PEPPER_VARIABLE}, or into a file and set auth.pepper to ${{file:/path/of/it}}. "
    "Another pepper makes every key invalid."
)


def read_pepper(env: Mapping[str, str], *, configured: str = "") -> bytes:
    """The pepper from the environment, else what the settings hold.

    Raises BadPepper if there is none or it has fewer than MIN_PEPPER_BYTES bytes.
    """
    if PEPPER_VARIABLE in env:
        source, pepper = PEPPER_VARIABLE, env[PEPPER_VARIABLE]
    else:
        source, pepper = "auth.pepper", configured
    size = len(pepper.encode())
    if not size:
        raise BadPepper(f"API keys are on, but {source} holds no pepper. {_HOW_TO}")
    if size < MIN_PEPPER_BYTES:
        raise BadPepper(f"the pepper in {source} has {size} bytes, it needs {MIN_PEPPER_BYTES}. {_HOW_TO}")
    return pepper.encode()
