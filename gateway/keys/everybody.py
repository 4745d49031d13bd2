"""The authenticator of a gateway that asks for no key: whoever reaches its port is one tenant."""

from gateway.keys.key import SCOPES, Caller

_ANYBODY = Caller(tenant="default", key_id="", scopes=frozenset(SCOPES), models=frozenset())


class Everybody:
    """Lets everybody in."""

    def authenticate(self, authorization: bytes | None, *, now: float) -> Caller:  # noqa: ARG002 - the door's
        """The same caller, always."""
        return _ANYBODY
