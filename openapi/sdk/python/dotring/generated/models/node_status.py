from enum import Enum


class NodeStatus(str, Enum):
    ALIVE = "alive"
    FAILED = "failed"
    LEAVING = "leaving"
    LEFT = "left"
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return str(self.value)
