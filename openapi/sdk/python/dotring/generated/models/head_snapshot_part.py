from enum import Enum


class HeadSnapshotPart(str, Enum):
    HINTS = "hints"
    RECORDS = "records"

    def __str__(self) -> str:
        return str(self.value)
