from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.item_problem_type_1_outcome import ItemProblemType1Outcome

if TYPE_CHECKING:
    from ..models.replica_report import ReplicaReport


T = TypeVar("T", bound="ItemProblemType1")


@_attrs_define
class ItemProblemType1:
    """
    Attributes:
        type_ (str):
        title (str):
        status (int):
        detail (str):
        outcome (ItemProblemType1Outcome):
        replicas (list[ReplicaReport]):
        request_id (str):
    """

    type_: str
    title: str
    status: int
    detail: str
    outcome: ItemProblemType1Outcome
    replicas: list[ReplicaReport]
    request_id: str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        type_ = self.type_

        title = self.title

        status = self.status

        detail = self.detail

        outcome = self.outcome.value

        replicas = []
        for replicas_item_data in self.replicas:
            replicas_item = replicas_item_data.to_dict()
            replicas.append(replicas_item)

        request_id = self.request_id

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "type": type_,
                "title": title,
                "status": status,
                "detail": detail,
                "outcome": outcome,
                "replicas": replicas,
                "request_id": request_id,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.replica_report import ReplicaReport

        d = dict(src_dict)
        type_ = d.pop("type")

        title = d.pop("title")

        status = d.pop("status")

        detail = d.pop("detail")

        outcome = ItemProblemType1Outcome(d.pop("outcome"))

        replicas = []
        _replicas = d.pop("replicas")
        for replicas_item_data in _replicas:
            replicas_item = ReplicaReport.from_dict(replicas_item_data)

            replicas.append(replicas_item)

        request_id = d.pop("request_id")

        item_problem_type_1 = cls(
            type_=type_,
            title=title,
            status=status,
            detail=detail,
            outcome=outcome,
            replicas=replicas,
            request_id=request_id,
        )

        item_problem_type_1.additional_properties = d
        return item_problem_type_1

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
