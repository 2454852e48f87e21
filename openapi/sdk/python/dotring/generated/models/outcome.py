from enum import Enum


class Outcome(str, Enum):
    IN_DOUBT = "in-doubt"
    NOT_APPLIED = "not-applied"

    def __str__(self) -> str:
        return str(self.value)
