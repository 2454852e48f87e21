from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="LayoutMember")


@_attrs_define
class LayoutMember:
    """
    Attributes:
        id (str): 32 hexadecimal digits.
        name (str):
        zone (str):
        weight (float):
        tokens (list[int]):
    """

    id: str
    name: str
    zone: str
    weight: float
    tokens: list[int]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        id = self.id

        name = self.name

        zone = self.zone

        weight = self.weight

        tokens = self.tokens

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "id": id,
                "name": name,
                "zone": zone,
                "weight": weight,
                "tokens": tokens,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        id = d.pop("id")

        name = d.pop("name")

        zone = d.pop("zone")

        weight = d.pop("weight")

        tokens = cast(list[int], d.pop("tokens"))

        layout_member = cls(
            id=id,
            name=name,
            zone=zone,
            weight=weight,
            tokens=tokens,
        )

        layout_member.additional_properties = d
        return layout_member

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
