"""A tenant's name as it may stand in a path."""

import hashlib


def tenant_name(tenant: str) -> str:
    """The same for the same tenant everywhere, and nothing that a path could stumble over."""
    return hashlib.sha256(f"tenant\0{tenant}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
