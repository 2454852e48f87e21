from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.replica_report import ReplicaReport
    from ..models.sibling import Sibling


T = TypeVar("T", bound="Siblings")


@_attrs_define
class Siblings:
    """The key is `key` where it is UTF-8, else `key_base64`.

    Attributes:
        context (str): A context. Opaque; URL-safe base64 without padding.
        siblings (list[Sibling]):
        key (str | Unset):
        key_base64 (str | Unset):
        explain (list[ReplicaReport] | Unset): Under `explain=1`.
    """

    context: str
    siblings: list[Sibling]
    key: str | Unset = UNSET
    key_base64: str | Unset = UNSET
    explain: list[ReplicaReport] | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        context = self.context

        siblings = []
        for siblings_item_data in self.siblings:
            siblings_item = siblings_item_data.to_dict()
            siblings.append(siblings_item)

        key = self.key

        key_base64 = self.key_base64

        explain: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.explain, Unset):
            explain = []
            for explain_item_data in self.explain:
                explain_item = explain_item_data.to_dict()
                explain.append(explain_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "context": context,
                "siblings": siblings,
            }
        )
        if key is not UNSET:
            field_dict["key"] = key
        if key_base64 is not UNSET:
            field_dict["key_base64"] = key_base64
        if explain is not UNSET:
            field_dict["explain"] = explain

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.replica_report import ReplicaReport
        from ..models.sibling import Sibling

        d = dict(src_dict)
        context = d.pop("context")

        siblings = []
        _siblings = d.pop("siblings")
        for siblings_item_data in _siblings:
            siblings_item = Sibling.from_dict(siblings_item_data)

            siblings.append(siblings_item)

        key = d.pop("key", UNSET)

        key_base64 = d.pop("key_base64", UNSET)

        _explain = d.pop("explain", UNSET)
        explain: list[ReplicaReport] | Unset = UNSET
        if _explain is not UNSET:
            explain = []
            for explain_item_data in _explain:
                explain_item = ReplicaReport.from_dict(explain_item_data)

                explain.append(explain_item)

        siblings = cls(
            context=context,
            siblings=siblings,
            key=key,
            key_base64=key_base64,
            explain=explain,
        )

        siblings.additional_properties = d
        return siblings

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
