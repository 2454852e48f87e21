from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="BatchKey")


@_attrs_define
class BatchKey:
    """Either of the two.

    Attributes:
        key (str | Unset): The key where it is UTF-8, else empty.
        key_base64 (str | Unset): The key where it is not UTF-8, else empty.
    """

    key: str | Unset = UNSET
    key_base64: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        key = self.key

        key_base64 = self.key_base64

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if key is not UNSET:
            field_dict["key"] = key
        if key_base64 is not UNSET:
            field_dict["key_base64"] = key_base64

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        key = d.pop("key", UNSET)

        key_base64 = d.pop("key_base64", UNSET)

        batch_key = cls(
            key=key,
            key_base64=key_base64,
        )

        return batch_key
