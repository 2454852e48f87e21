from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.batch_delete_item import BatchDeleteItem


T = TypeVar("T", bound="BatchDeleteRequest")


@_attrs_define
class BatchDeleteRequest:
    """
    Attributes:
        items (list[BatchDeleteItem] | Unset):
        w (str | Unset): A number from 1 to N, `one`, `quorum` (the majority of N) or `all`; empty is the default. With
            any other, each item is refused.
        timeout (str | Unset): A Go duration; empty is the default.
        sloppy (bool | Unset): Whether stand-ins may count towards w; true by default.
    """

    items: list[BatchDeleteItem] | Unset = UNSET
    w: str | Unset = UNSET
    timeout: str | Unset = UNSET
    sloppy: bool | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        items: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.items, Unset):
            items = []
            for items_item_data in self.items:
                items_item = items_item_data.to_dict()
                items.append(items_item)

        w = self.w

        timeout = self.timeout

        sloppy = self.sloppy

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if items is not UNSET:
            field_dict["items"] = items
        if w is not UNSET:
            field_dict["w"] = w
        if timeout is not UNSET:
            field_dict["timeout"] = timeout
        if sloppy is not UNSET:
            field_dict["sloppy"] = sloppy

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.batch_delete_item import BatchDeleteItem

        d = dict(src_dict)
        _items = d.pop("items", UNSET)
        items: list[BatchDeleteItem] | Unset = UNSET
        if _items is not UNSET:
            items = []
            for items_item_data in _items:
                items_item = BatchDeleteItem.from_dict(items_item_data)

                items.append(items_item)

        w = d.pop("w", UNSET)

        timeout = d.pop("timeout", UNSET)

        sloppy = d.pop("sloppy", UNSET)

        batch_delete_request = cls(
            items=items,
            w=w,
            timeout=timeout,
            sloppy=sloppy,
        )

        return batch_delete_request
