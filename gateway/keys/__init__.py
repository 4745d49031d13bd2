"""API keys: who calls, and what they may ask for. `key` decides, `keyring` remembers, the stores keep."""

from gateway.keys.key import Caller, Grant, Key, Limits, authenticate, mint, require
from gateway.keys.keyring import Keyring

__all__ = ["Caller", "Grant", "Key", "Keyring", "Limits", "authenticate", "mint", "require"]
