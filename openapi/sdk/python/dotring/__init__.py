"""The client of Dotring's HTTP API: keys and values over any of several gateways, with contexts that carry themselves.

It needs the standard library alone. `dotring.generated`, with models and calls for batches and the cluster, needs the
extra `generated`.
"""

from ._client import MAX_SESSION_KEYS, Client, Conflict, Error, NoValue, Session, SessionFull, Sibling, Value, Written
from ._route import IN_DOUBT, NOT_APPLIED, escape, order

__all__ = [
    "IN_DOUBT", "MAX_SESSION_KEYS", "NOT_APPLIED", "Client", "Conflict", "Error", "NoValue", "Session", "SessionFull", "Sibling",
    "Value", "Written", "escape", "order",
]
