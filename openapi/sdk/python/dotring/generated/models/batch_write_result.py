from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.item_problem_type_1 import ItemProblemType1


T = TypeVar("T", bound="BatchWriteResult")


@_attrs_define
class BatchWriteResult:
    """
    Attributes:
        key (str): The key where it is UTF-8, else empty.
        key_base64 (str): The key where it is not UTF-8, else empty.
        status (int): As of a single write.
        context (str): Empty where the item has a problem.
        siblings (int):
        acks (int):
        hinted (int):
        problem (ItemProblemType1 | None): As Problem, with all defaults; `outcome` is empty for a read.
    """

    key: str
    key_base64: str
    status: int
    context: str
    siblings: int
    acks: int
    hinted: int
    problem: ItemProblemType1 | None
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.item_problem_type_1 import ItemProblemType1

        key = self.key

        key_base64 = self.key_base64

        status = self.status

        context = self.context

        siblings = self.siblings

        acks = self.acks

        hinted = self.hinted

        problem: dict[str, Any] | None
        if isinstance(self.problem, ItemProblemType1):
            problem = self.problem.to_dict()
        else:
            problem = self.problem

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "key": key,
                "key_base64": key_base64,
                "status": status,
                "context": context,
                "siblings": siblings,
                "acks": acks,
                "hinted": hinted,
                "problem": problem,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.item_problem_type_1 import ItemProblemType1

        d = dict(src_dict)
        key = d.pop("key")

        key_base64 = d.pop("key_base64")

        status = d.pop("status")

        context = d.pop("context")

        siblings = d.pop("siblings")

        acks = d.pop("acks")

        hinted = d.pop("hinted")

        def _parse_problem(data: object) -> ItemProblemType1 | None:
            if data is None:
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                componentsschemas_item_problem_type_1 = ItemProblemType1.from_dict(data)

                return componentsschemas_item_problem_type_1
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(ItemProblemType1 | None, data)

        problem = _parse_problem(d.pop("problem"))

        batch_write_result = cls(
            key=key,
            key_base64=key_base64,
            status=status,
            context=context,
            siblings=siblings,
            acks=acks,
            hinted=hinted,
            problem=problem,
        )

        batch_write_result.additional_properties = d
        return batch_write_result

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
