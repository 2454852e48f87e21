from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="HotKey")


@_attrs_define
class HotKey:
    """
    Attributes:
        key (str): The key where it is UTF-8, else empty.
        key_base64 (str): The key where it is not UTF-8, else empty.
        reads_per_second (float):
        writes_per_second (float):
        share (float): Its part of all requests.
    """

    key: str
    key_base64: str
    reads_per_second: float
    writes_per_second: float
    share: float
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        key = self.key

        key_base64 = self.key_base64

        reads_per_second = self.reads_per_second

        writes_per_second = self.writes_per_second

        share = self.share

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "key": key,
                "key_base64": key_base64,
                "reads_per_second": reads_per_second,
                "writes_per_second": writes_per_second,
                "share": share,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        key = d.pop("key")

        key_base64 = d.pop("key_base64")

        reads_per_second = d.pop("reads_per_second")

        writes_per_second = d.pop("writes_per_second")

        share = d.pop("share")

        hot_key = cls(
            key=key,
            key_base64=key_base64,
            reads_per_second=reads_per_second,
            writes_per_second=writes_per_second,
            share=share,
        )

        hot_key.additional_properties = d
        return hot_key

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
