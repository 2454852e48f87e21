from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.clock_entry import ClockEntry


T = TypeVar("T", bound="ReplicaReport")


@_attrs_define
class ReplicaReport:
    """What one replica did for a request.

    Attributes:
        node (str): Its name where that is known, else its id.
        did (str): What it was asked for, or "not asked".
        detail (str): How that ended.
        at_us (str): Microseconds after the request began.
        clock (list[ClockEntry]):
        repaired (bool): Whether this read repaired it.
    """

    node: str
    did: str
    detail: str
    at_us: str
    clock: list[ClockEntry]
    repaired: bool
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        node = self.node

        did = self.did

        detail = self.detail

        at_us = self.at_us

        clock = []
        for clock_item_data in self.clock:
            clock_item = clock_item_data.to_dict()
            clock.append(clock_item)

        repaired = self.repaired

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "node": node,
                "did": did,
                "detail": detail,
                "at_us": at_us,
                "clock": clock,
                "repaired": repaired,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.clock_entry import ClockEntry

        d = dict(src_dict)
        node = d.pop("node")

        did = d.pop("did")

        detail = d.pop("detail")

        at_us = d.pop("at_us")

        clock = []
        _clock = d.pop("clock")
        for clock_item_data in _clock:
            clock_item = ClockEntry.from_dict(clock_item_data)

            clock.append(clock_item)

        repaired = d.pop("repaired")

        replica_report = cls(
            node=node,
            did=did,
            detail=detail,
            at_us=at_us,
            clock=clock,
            repaired=repaired,
        )

        replica_report.additional_properties = d
        return replica_report

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
