from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.stop_shortage import StopShortage


T = TypeVar("T", bound="CanStop")


@_attrs_define
class CanStop:
    """
    Attributes:
        node (str): Its name.
        can_stop (bool):
        verdict (str): In one sentence.
        short (list[StopShortage]): Slots that would have fewer copies than a quorum, by their owners, the most first.
        remarks (list[str]): What to know besides.
    """

    node: str
    can_stop: bool
    verdict: str
    short: list[StopShortage]
    remarks: list[str]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        node = self.node

        can_stop = self.can_stop

        verdict = self.verdict

        short = []
        for short_item_data in self.short:
            short_item = short_item_data.to_dict()
            short.append(short_item)

        remarks = self.remarks

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "node": node,
                "can_stop": can_stop,
                "verdict": verdict,
                "short": short,
                "remarks": remarks,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.stop_shortage import StopShortage

        d = dict(src_dict)
        node = d.pop("node")

        can_stop = d.pop("can_stop")

        verdict = d.pop("verdict")

        short = []
        _short = d.pop("short")
        for short_item_data in _short:
            short_item = StopShortage.from_dict(short_item_data)

            short.append(short_item)

        remarks = cast(list[str], d.pop("remarks"))

        can_stop = cls(
            node=node,
            can_stop=can_stop,
            verdict=verdict,
            short=short,
            remarks=remarks,
        )

        can_stop.additional_properties = d
        return can_stop

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
