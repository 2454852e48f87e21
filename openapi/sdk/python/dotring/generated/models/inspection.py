from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.layout_ref import LayoutRef
    from ..models.replica import Replica


T = TypeVar("T", bound="Inspection")


@_attrs_define
class Inspection:
    """
    Attributes:
        key (str): The key where it is UTF-8, else empty.
        key_base64 (str): The key where it is not UTF-8, else empty.
        slot (int):
        layout (LayoutRef):
        replicas (list[Replica]):
    """

    key: str
    key_base64: str
    slot: int
    layout: LayoutRef
    replicas: list[Replica]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        key = self.key

        key_base64 = self.key_base64

        slot = self.slot

        layout = self.layout.to_dict()

        replicas = []
        for replicas_item_data in self.replicas:
            replicas_item = replicas_item_data.to_dict()
            replicas.append(replicas_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "key": key,
                "key_base64": key_base64,
                "slot": slot,
                "layout": layout,
                "replicas": replicas,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.layout_ref import LayoutRef
        from ..models.replica import Replica

        d = dict(src_dict)
        key = d.pop("key")

        key_base64 = d.pop("key_base64")

        slot = d.pop("slot")

        layout = LayoutRef.from_dict(d.pop("layout"))

        replicas = []
        _replicas = d.pop("replicas")
        for replicas_item_data in _replicas:
            replicas_item = Replica.from_dict(replicas_item_data)

            replicas.append(replicas_item)

        inspection = cls(
            key=key,
            key_base64=key_base64,
            slot=slot,
            layout=layout,
            replicas=replicas,
        )

        inspection.additional_properties = d
        return inspection

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
