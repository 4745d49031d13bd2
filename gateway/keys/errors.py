"""What can go wrong with keys, as leaves of the gateway's own tree.

GatewayError
├── ClientFault
│   ├── InvalidKey          401: missing, malformed, unknown, expired or revoked, never said which
│   ├── NotAllowed          403: a good key that does not reach this far
│   ├── KeyNotFound         no key has this id
│   ├── KeyExists           a key with this id was stored before
│   └── TooManyKeys         the store holds as many as a replica will load
├── BadPepper               the secret behind all digests is missing or too short
└── KeyStoreUnavailable     the store did not answer
"""

from gateway.errors import ClientFault, GatewayError


class InvalidKey(ClientFault):
    """One text for every reason, so that nobody can ask which keys exist."""

    def __init__(self) -> None:
        super().__init__(
            "The API key is missing, malformed, unknown, expired or revoked. "
            "Send it as 'Authorization: Bearer fr-...'; the operator makes one with `friendo keys create`."
        )


class NotAllowed(ClientFault):
    """The key is good, but `what` is outside of it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"This API key does not include {what}.")
        self.what = what


class KeyNotFound(ClientFault):
    """No key has this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id}; `friendo keys list` shows the ids")
        self.key_id = key_id


class KeyExists(ClientFault):
    """A key with this id was stored before."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is a key {key_id} already; make a new one, ids are drawn at random")
        self.key_id = key_id


class KeyUnreadable(ClientFault):
    """A newer program wrote this record."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"key {key_id} is in a format that this version does not read; use the newer one")
        self.key_id = key_id


class TooManyKeys(ClientFault):
    """Every replica holds all keys in memory, so their number is bounded."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the store holds {limit} keys, which is its limit; delete some: `friendo keys revoke --forget`"
        )
        self.limit = limit


class BadPepper(GatewayError):
    """The secret behind all digests is missing or too short; the text says how to make one."""


class KeyStoreUnavailable(GatewayError):
    """The key store did not answer; what it did is unknown."""
