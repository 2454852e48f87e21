from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.hot_key import HotKey


T = TypeVar("T", bound="HotKeys")


@_attrs_define
class HotKeys:
    """
    Attributes:
        gateway (str):
        requests_per_second (float): Of all keys.
        keys (list[HotKey]): The hottest first.
    """

    gateway: str
    requests_per_second: float
    keys: list[HotKey]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        gateway = self.gateway

        requests_per_second = self.requests_per_second

        keys = []
        for keys_item_data in self.keys:
            keys_item = keys_item_data.to_dict()
            keys.append(keys_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "gateway": gateway,
                "requests_per_second": requests_per_second,
                "keys": keys,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.hot_key import HotKey

        d = dict(src_dict)
        gateway = d.pop("gateway")

        requests_per_second = d.pop("requests_per_second")

        keys = []
        _keys = d.pop("keys")
        for keys_item_data in _keys:
            keys_item = HotKey.from_dict(keys_item_data)

            keys.append(keys_item)

        hot_keys = cls(
            gateway=gateway,
            requests_per_second=requests_per_second,
            keys=keys,
        )

        hot_keys.additional_properties = d
        return hot_keys

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
