from enum import Enum


class ItemProblemType1Outcome(str, Enum):
    IN_DOUBT = "in-doubt"
    NOT_APPLIED = "not-applied"
    VALUE_0 = ""

    def __str__(self) -> str:
        return str(self.value)
