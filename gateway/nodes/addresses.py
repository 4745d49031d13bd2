"""Addresses that no request may go to, whoever asks for it."""

from ipaddress import IPv6Address, ip_address

LINK_LOCAL = "link-local addresses (169.254.0.0/16, fe80::/10) are refused: metadata services live there"


def is_link_local(address: str) -> bool:
    """Whether this literal address leads to the machine's own link; a name never does, as a text."""
    try:
        found = ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_link_local
