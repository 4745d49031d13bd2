"""How long prompts are, in tokens that were counted or estimated, and whether a cutoff would cut them.
Pure.
"""

from collections import Counter

QUANTILE = 0.99
_BYTES_A_TOKEN = 4


class Lengths:
    """How many prompts have which length."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, tokens: int) -> None:
        """One prompt."""
        self._counts[tokens] += 1

    def quantile(self, share: float = QUANTILE) -> int:
        """The least length that this share of the prompts does not exceed; 0 without any."""
        wanted, below = share * self._counts.total(), 0
        for tokens in sorted(self._counts):
            below += self._counts[tokens]
            if below >= wanted:
                return tokens
        return 0

    def longest(self) -> int:
        """The longest of all."""
        return max(self._counts, default=0)


def estimated(size_bytes: int) -> int:
    """Tokens of a prompt of so many bytes, rounded up: four bytes to a token, as everywhere in the
    gateway.
    """
    return -(-size_bytes // _BYTES_A_TOKEN)


def cutoff_problem(cutoff_len: int, longest_prompt: int) -> str:
    """Why a recipe's `cutoff_len` does not fit the dataset; empty where it does.

    `longest_prompt`: `Prepared.longest_prompt`, the 99th percentile. LLaMA-Factory cuts what is longer and
    says nothing: the model would learn from prompts that serving never sends.
    """
    if cutoff_len >= longest_prompt:
        return ""
    return (
        f"cutoff_len is {cutoff_len}, and the 99th percentile of this dataset's prompts has {longest_prompt}"
        f" tokens: set it to {longest_prompt} or more, or export with a shorter window"
    )
