from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.task_kind import TaskKind
from ..models.task_state import TaskState

T = TypeVar("T", bound="Task")


@_attrs_define
class Task:
    """
    Attributes:
        node (str): The name of the node whose work it is; empty for a change of the layout.
        kind (TaskKind): `transfer` is what a node pulls for a change of the layout, `leftovers` what it hands over
            because it does not own it any more, `unknown` a node that does not answer.
        peer (str): The name of the node that it concerns.
        state (TaskState):
        done (str): A number from 0 to 2^64-1.
        total (str): A number from 0 to 2^64-1.
        age_seconds (float): Since the last whole comparison began, or that hints have been kept; 0 where not known.
        detail (str):
        bytes_done (str): A number from 0 to 2^64-1.
        bytes_total (str): A number from 0 to 2^64-1.
        seconds_left (float): An estimate of the time left; 0 where not known.
    """

    node: str
    kind: TaskKind
    peer: str
    state: TaskState
    done: str
    total: str
    age_seconds: float
    detail: str
    bytes_done: str
    bytes_total: str
    seconds_left: float
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        node = self.node

        kind = self.kind.value

        peer = self.peer

        state = self.state.value

        done = self.done

        total = self.total

        age_seconds = self.age_seconds

        detail = self.detail

        bytes_done = self.bytes_done

        bytes_total = self.bytes_total

        seconds_left = self.seconds_left

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "node": node,
                "kind": kind,
                "peer": peer,
                "state": state,
                "done": done,
                "total": total,
                "age_seconds": age_seconds,
                "detail": detail,
                "bytes_done": bytes_done,
                "bytes_total": bytes_total,
                "seconds_left": seconds_left,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        node = d.pop("node")

        kind = TaskKind(d.pop("kind"))

        peer = d.pop("peer")

        state = TaskState(d.pop("state"))

        done = d.pop("done")

        total = d.pop("total")

        age_seconds = d.pop("age_seconds")

        detail = d.pop("detail")

        bytes_done = d.pop("bytes_done")

        bytes_total = d.pop("bytes_total")

        seconds_left = d.pop("seconds_left")

        task = cls(
            node=node,
            kind=kind,
            peer=peer,
            state=state,
            done=done,
            total=total,
            age_seconds=age_seconds,
            detail=detail,
            bytes_done=bytes_done,
            bytes_total=bytes_total,
            seconds_left=seconds_left,
        )

        task.additional_properties = d
        return task

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
