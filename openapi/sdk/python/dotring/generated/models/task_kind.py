from enum import Enum


class TaskKind(str, Enum):
    COMPARE = "compare"
    HINTS = "hints"
    LAYOUT = "layout"
    LEFTOVERS = "leftovers"
    REFILL = "refill"
    TRANSFER = "transfer"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return str(self.value)
