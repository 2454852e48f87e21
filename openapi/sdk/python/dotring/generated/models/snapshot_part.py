from enum import Enum


class SnapshotPart(str, Enum):
    HINTS = "hints"
    RECORDS = "records"

    def __str__(self) -> str:
        return str(self.value)
