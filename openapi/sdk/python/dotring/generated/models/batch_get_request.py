from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.batch_key import BatchKey


T = TypeVar("T", bound="BatchGetRequest")


@_attrs_define
class BatchGetRequest:
    """
    Attributes:
        items (list[BatchKey] | Unset):
        r (str | Unset): A number from 1 to N, `one`, `quorum` (the majority of N) or `all`; empty is the default. With
            any other, each item is refused.
        timeout (str | Unset): A Go duration; empty is the default.
    """

    items: list[BatchKey] | Unset = UNSET
    r: str | Unset = UNSET
    timeout: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        items: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.items, Unset):
            items = []
            for items_item_data in self.items:
                items_item = items_item_data.to_dict()
                items.append(items_item)

        r = self.r

        timeout = self.timeout

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if items is not UNSET:
            field_dict["items"] = items
        if r is not UNSET:
            field_dict["r"] = r
        if timeout is not UNSET:
            field_dict["timeout"] = timeout

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.batch_key import BatchKey

        d = dict(src_dict)
        _items = d.pop("items", UNSET)
        items: list[BatchKey] | Unset = UNSET
        if _items is not UNSET:
            items = []
            for items_item_data in _items:
                items_item = BatchKey.from_dict(items_item_data)

                items.append(items_item)

        r = d.pop("r", UNSET)

        timeout = d.pop("timeout", UNSET)

        batch_get_request = cls(
            items=items,
            r=r,
            timeout=timeout,
        )

        return batch_get_request
