from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="BatchDeleteItem")


@_attrs_define
class BatchDeleteItem:
    """
    Attributes:
        key (str | Unset): The key where it is UTF-8, else empty.
        key_base64 (str | Unset): The key where it is not UTF-8, else empty.
        context (str | Unset): What the item replaces, as an answer told it; an item whose context is damaged is
            refused.
        request_id (str | Unset): Names the write of this item: 1 to 64 printable ASCII characters, or the item is
            refused; empty is none.
    """

    key: str | Unset = UNSET
    key_base64: str | Unset = UNSET
    context: str | Unset = UNSET
    request_id: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        key = self.key

        key_base64 = self.key_base64

        context = self.context

        request_id = self.request_id

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if key is not UNSET:
            field_dict["key"] = key
        if key_base64 is not UNSET:
            field_dict["key_base64"] = key_base64
        if context is not UNSET:
            field_dict["context"] = context
        if request_id is not UNSET:
            field_dict["request_id"] = request_id

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        key = d.pop("key", UNSET)

        key_base64 = d.pop("key_base64", UNSET)

        context = d.pop("context", UNSET)

        request_id = d.pop("request_id", UNSET)

        batch_delete_item = cls(
            key=key,
            key_base64=key_base64,
            context=context,
            request_id=request_id,
        )

        return batch_delete_item
