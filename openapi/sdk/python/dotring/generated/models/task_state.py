from enum import Enum


class TaskState(str, Enum):
    RUNNING = "running"
    WAITING = "waiting"

    def __str__(self) -> str:
        return str(self.value)
