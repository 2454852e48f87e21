from enum import Enum


class ReplicaRole(str, Enum):
    FALLBACK = "fallback"
    PENDING = "pending"
    PRIMARY = "primary"

    def __str__(self) -> str:
        return str(self.value)
