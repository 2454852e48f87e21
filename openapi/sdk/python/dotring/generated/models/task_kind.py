from enum import Enum


class TaskKind(str, Enum):
    COMPARE = "compare"
    HINTS = "hints"
    LAYOUT = "layout"
    REFILL = "refill"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return str(self.value)
