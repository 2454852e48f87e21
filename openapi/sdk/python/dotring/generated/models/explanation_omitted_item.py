from enum import Enum


class ExplanationOmittedItem(str, Enum):
    CLOCKS = "clocks"
    REPLICAS = "replicas"
    SIBLINGS = "siblings"

    def __str__(self) -> str:
        return str(self.value)
