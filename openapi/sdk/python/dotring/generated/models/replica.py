from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.replica_role import ReplicaRole
from ..models.replica_state import ReplicaState

if TYPE_CHECKING:
    from ..models.clock_entry import ClockEntry
    from ..models.replica_sibling import ReplicaSibling


T = TypeVar("T", bound="Replica")


@_attrs_define
class Replica:
    """
    Attributes:
        node (str): 32 hexadecimal digits.
        name (str):
        zone (str):
        role (ReplicaRole): `pending` is an owner in the newest layout alone.
        state (ReplicaState):
        error (str):
        clock (list[ClockEntry]):
        siblings (list[ReplicaSibling]):
        digest (str): Equal on replicas that hold the same.
        record_bytes (int):
        marked (bool): The record is a tombstone that was proven to be needed no more and is about to be removed.
        why (str): From the owner that collects the key's tombstone, why it is still there.
    """

    node: str
    name: str
    zone: str
    role: ReplicaRole
    state: ReplicaState
    error: str
    clock: list[ClockEntry]
    siblings: list[ReplicaSibling]
    digest: str
    record_bytes: int
    marked: bool
    why: str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        node = self.node

        name = self.name

        zone = self.zone

        role = self.role.value

        state = self.state.value

        error = self.error

        clock = []
        for clock_item_data in self.clock:
            clock_item = clock_item_data.to_dict()
            clock.append(clock_item)

        siblings = []
        for siblings_item_data in self.siblings:
            siblings_item = siblings_item_data.to_dict()
            siblings.append(siblings_item)

        digest = self.digest

        record_bytes = self.record_bytes

        marked = self.marked

        why = self.why

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "node": node,
                "name": name,
                "zone": zone,
                "role": role,
                "state": state,
                "error": error,
                "clock": clock,
                "siblings": siblings,
                "digest": digest,
                "record_bytes": record_bytes,
                "marked": marked,
                "why": why,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.clock_entry import ClockEntry
        from ..models.replica_sibling import ReplicaSibling

        d = dict(src_dict)
        node = d.pop("node")

        name = d.pop("name")

        zone = d.pop("zone")

        role = ReplicaRole(d.pop("role"))

        state = ReplicaState(d.pop("state"))

        error = d.pop("error")

        clock = []
        _clock = d.pop("clock")
        for clock_item_data in _clock:
            clock_item = ClockEntry.from_dict(clock_item_data)

            clock.append(clock_item)

        siblings = []
        _siblings = d.pop("siblings")
        for siblings_item_data in _siblings:
            siblings_item = ReplicaSibling.from_dict(siblings_item_data)

            siblings.append(siblings_item)

        digest = d.pop("digest")

        record_bytes = d.pop("record_bytes")

        marked = d.pop("marked")

        why = d.pop("why")

        replica = cls(
            node=node,
            name=name,
            zone=zone,
            role=role,
            state=state,
            error=error,
            clock=clock,
            siblings=siblings,
            digest=digest,
            record_bytes=record_bytes,
            marked=marked,
            why=why,
        )

        replica.additional_properties = d
        return replica

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
