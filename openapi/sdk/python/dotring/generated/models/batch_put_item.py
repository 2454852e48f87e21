from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="BatchPutItem")


@_attrs_define
class BatchPutItem:
    """
    Attributes:
        key (str | Unset): The key where it is UTF-8, else empty.
        key_base64 (str | Unset): The key where it is not UTF-8, else empty.
        value (str | Unset):
        content_type (str | Unset): At most 255 bytes, or the item is refused; empty is application/octet-stream.
        context (str | Unset): What the item replaces, as an answer told it; an item whose context is damaged is
            refused.
        request_id (str | Unset): Names the write of this item: 1 to 64 printable ASCII characters, or the item is
            refused; empty is none.
    """

    key: str | Unset = UNSET
    key_base64: str | Unset = UNSET
    value: str | Unset = UNSET
    content_type: str | Unset = UNSET
    context: str | Unset = UNSET
    request_id: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        key = self.key

        key_base64 = self.key_base64

        value = self.value

        content_type = self.content_type

        context = self.context

        request_id = self.request_id

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if key is not UNSET:
            field_dict["key"] = key
        if key_base64 is not UNSET:
            field_dict["key_base64"] = key_base64
        if value is not UNSET:
            field_dict["value"] = value
        if content_type is not UNSET:
            field_dict["content_type"] = content_type
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

        value = d.pop("value", UNSET)

        content_type = d.pop("content_type", UNSET)

        context = d.pop("context", UNSET)

        request_id = d.pop("request_id", UNSET)

        batch_put_item = cls(
            key=key,
            key_base64=key_base64,
            value=value,
            content_type=content_type,
            context=context,
            request_id=request_id,
        )

        return batch_put_item
