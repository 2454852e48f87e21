from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="Sibling")


@_attrs_define
class Sibling:
    """
    Attributes:
        value (str):
        content_type (str):
        etag (str): 32 hexadecimal digits.
        last_modified (datetime.datetime):
        tombstone (bool): A deletion, whose value is empty.
    """

    value: str
    content_type: str
    etag: str
    last_modified: datetime.datetime
    tombstone: bool
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        value = self.value

        content_type = self.content_type

        etag = self.etag

        last_modified = self.last_modified.isoformat()

        tombstone = self.tombstone

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "value": value,
                "content_type": content_type,
                "etag": etag,
                "last_modified": last_modified,
                "tombstone": tombstone,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        value = d.pop("value")

        content_type = d.pop("content_type")

        etag = d.pop("etag")

        last_modified = datetime.datetime.fromisoformat(d.pop("last_modified"))

        tombstone = d.pop("tombstone")

        sibling = cls(
            value=value,
            content_type=content_type,
            etag=etag,
            last_modified=last_modified,
            tombstone=tombstone,
        )

        sibling.additional_properties = d
        return sibling

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
