from enum import Enum


class ReplicaState(str, Enum):
    ABSENT = "absent"
    FAILED = "failed"
    RECORD = "record"

    def __str__(self) -> str:
        return str(self.value)
