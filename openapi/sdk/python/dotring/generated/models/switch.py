from enum import Enum


class Switch(str, Enum):
    FALSE = "false"
    TRUE = "true"
    VALUE_0 = "1"
    VALUE_2 = "0"

    def __str__(self) -> str:
        return str(self.value)
