from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.explanation_omitted_item import ExplanationOmittedItem
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.explained_sibling import ExplainedSibling
    from ..models.replica_report import ReplicaReport


T = TypeVar("T", bound="Explanation")


@_attrs_define
class Explanation:
    """
    Attributes:
        replicas (list[ReplicaReport]):
        siblings (list[ExplainedSibling]): Every sibling of the record, also those that look alike and are shown as one.
        omitted (list[ExplanationOmittedItem] | Unset):
    """

    replicas: list[ReplicaReport]
    siblings: list[ExplainedSibling]
    omitted: list[ExplanationOmittedItem] | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        replicas = []
        for replicas_item_data in self.replicas:
            replicas_item = replicas_item_data.to_dict()
            replicas.append(replicas_item)

        siblings = []
        for siblings_item_data in self.siblings:
            siblings_item = siblings_item_data.to_dict()
            siblings.append(siblings_item)

        omitted: list[str] | Unset = UNSET
        if not isinstance(self.omitted, Unset):
            omitted = []
            for omitted_item_data in self.omitted:
                omitted_item = omitted_item_data.value
                omitted.append(omitted_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "replicas": replicas,
                "siblings": siblings,
            }
        )
        if omitted is not UNSET:
            field_dict["omitted"] = omitted

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.explained_sibling import ExplainedSibling
        from ..models.replica_report import ReplicaReport

        d = dict(src_dict)
        replicas = []
        _replicas = d.pop("replicas")
        for replicas_item_data in _replicas:
            replicas_item = ReplicaReport.from_dict(replicas_item_data)

            replicas.append(replicas_item)

        siblings = []
        _siblings = d.pop("siblings")
        for siblings_item_data in _siblings:
            siblings_item = ExplainedSibling.from_dict(siblings_item_data)

            siblings.append(siblings_item)

        _omitted = d.pop("omitted", UNSET)
        omitted: list[ExplanationOmittedItem] | Unset = UNSET
        if _omitted is not UNSET:
            omitted = []
            for omitted_item_data in _omitted:
                omitted_item = ExplanationOmittedItem(omitted_item_data)

                omitted.append(omitted_item)

        explanation = cls(
            replicas=replicas,
            siblings=siblings,
            omitted=omitted,
        )

        explanation.additional_properties = d
        return explanation

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
