from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="BatchPutItem")


@_attrs_define
class BatchPutItem:
    """
    Attributes:
        key (str | Unset): The key where it is UTF-8, else empty.
        key_base64 (str | Unset): The key where it is not UTF-8, else empty.
        value (str | Unset):
        content_type (str | Unset):
        context (str | Unset): A context. Opaque; URL-safe base64 without padding.
        request_id (str | Unset):
    """

    key: str | Unset = UNSET
    key_base64: str | Unset = UNSET
    value: str | Unset = UNSET
    content_type: str | Unset = UNSET
    context: str | Unset = UNSET
    request_id: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        key = self.key

        key_base64 = self.key_base64

        value = self.value

        content_type = self.content_type

        context = self.context

        request_id = self.request_id

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
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

        batch_put_item.additional_properties = d
        return batch_put_item

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
