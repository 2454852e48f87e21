"""Which gateway is asked, and whether once more. Pure: no clock, no socket, no randomness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence
from urllib.parse import quote

NOT_APPLIED = "not-applied"
"""A failed write that will never become visible."""
IN_DOUBT = "in-doubt"
"""A failed write that may be visible, or become so."""

FIRST_BACKOFF = 0.05
MAX_WAIT = 10.0


def order(gateways: Sequence[str], key: bytes) -> list[str]:
    """The gateways in the order in which they are tried for a key, by rendezvous hashing.

    All clients with the same list, of every language, read one key through one gateway, and a gateway that leaves moves
    its keys alone. Scores are FNV-1a over the gateway, a zero byte and the key, finished as MurmurHash3 does.
    """
    return sorted(gateways, key=lambda g: (-_score(g, key), g))


def _score(gateway: str, key: bytes) -> int:
    h = 2166136261
    for byte in gateway.encode() + b"\0" + key:
        h = (h ^ byte) * 16777619 & 0xFFFFFFFF
    h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ h >> 16


def escape(key: bytes) -> str:
    """A key as one segment of a path: every byte but the unreserved ones of RFC 3986 is percent-encoded."""
    return quote(key, safe="")


@dataclass(frozen=True)
class Attempt:
    """How one request ended that did not succeed."""

    status: int = 0  # 0 where no answer came
    sent: bool = True  # whether the gateway may have seen it
    outcome: str = ""  # what the answer says of a write
    retry_after: float = 0

    @property
    def doubtful(self) -> bool:
        """Whether a write that ended so may have happened.

        An answer of a server's fault that does not say so is a balancer's, who does not know either.
        """
        if self.status == 0:
            return self.sent
        return self.outcome == IN_DOUBT or not self.outcome and self.status >= 500

    def again(self, n: int, limit: int, gateways: int, write: bool, jitter: float) -> float | None:
        """After how many seconds a request is repeated after its nth attempt, from 1, of at most limit; None for never.

        Other gateways are tried at once where one could not be reached; what a gateway asks for by Retry-After is the
        least to wait, and a wait above MAX_WAIT is not worth it. jitter is between 0 and 1.
        """
        worth = self.status in (0, 429, 502, 503, 504) or write and self.doubtful
        if not worth or n >= limit or self.retry_after > MAX_WAIT:
            return None
        if self.status == 0 and n < gateways:
            return 0.0
        return max(self.retry_after, min(FIRST_BACKOFF * 2 ** min(n - 1, 16), MAX_WAIT) * (0.5 + jitter / 2))


def parse_retry_after(text: str | None) -> float:
    """The header in seconds; 0 where it is absent or a date."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else 0.0
