from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="NodeShare")


@_attrs_define
class NodeShare:
    """
    Attributes:
        id (str): 32 hexadecimal digits.
        name (str):
        weight_before (float):
        weight_after (float):
        share_before (float): The part of all keys that it holds a copy of; 0 where it is no member.
        share_after (float):
    """

    id: str
    name: str
    weight_before: float
    weight_after: float
    share_before: float
    share_after: float
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        id = self.id

        name = self.name

        weight_before = self.weight_before

        weight_after = self.weight_after

        share_before = self.share_before

        share_after = self.share_after

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "id": id,
                "name": name,
                "weight_before": weight_before,
                "weight_after": weight_after,
                "share_before": share_before,
                "share_after": share_after,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        id = d.pop("id")

        name = d.pop("name")

        weight_before = d.pop("weight_before")

        weight_after = d.pop("weight_after")

        share_before = d.pop("share_before")

        share_after = d.pop("share_after")

        node_share = cls(
            id=id,
            name=name,
            weight_before=weight_before,
            weight_after=weight_after,
            share_before=share_before,
            share_after=share_after,
        )

        node_share.additional_properties = d
        return node_share

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
