from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="ReplicaSibling")


@_attrs_define
class ReplicaSibling:
    """
    Attributes:
        actor (str): 32 hexadecimal digits.
        counter (str): A number from 0 to 2^64-1.
        tombstone (bool):
        content_type (str):
        etag (str): 32 hexadecimal digits.
        value_bytes (int):
        last_modified (datetime.datetime):
        preview (str): The first bytes of the value, at most 256.
    """

    actor: str
    counter: str
    tombstone: bool
    content_type: str
    etag: str
    value_bytes: int
    last_modified: datetime.datetime
    preview: str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        actor = self.actor

        counter = self.counter

        tombstone = self.tombstone

        content_type = self.content_type

        etag = self.etag

        value_bytes = self.value_bytes

        last_modified = self.last_modified.isoformat()

        preview = self.preview

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "actor": actor,
                "counter": counter,
                "tombstone": tombstone,
                "content_type": content_type,
                "etag": etag,
                "value_bytes": value_bytes,
                "last_modified": last_modified,
                "preview": preview,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        actor = d.pop("actor")

        counter = d.pop("counter")

        tombstone = d.pop("tombstone")

        content_type = d.pop("content_type")

        etag = d.pop("etag")

        value_bytes = d.pop("value_bytes")

        last_modified = datetime.datetime.fromisoformat(d.pop("last_modified"))

        preview = d.pop("preview")

        replica_sibling = cls(
            actor=actor,
            counter=counter,
            tombstone=tombstone,
            content_type=content_type,
            etag=etag,
            value_bytes=value_bytes,
            last_modified=last_modified,
            preview=preview,
        )

        replica_sibling.additional_properties = d
        return replica_sibling

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
