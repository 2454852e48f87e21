from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="Written")


@_attrs_define
class Written:
    """
    Attributes:
        context (str): A context. Opaque; URL-safe base64 without padding.
        siblings (int): Siblings of the record after the write.
        acks (int): Distinct machines that hold the write durably.
        hinted (int): Of them, stand-ins.
    """

    context: str
    siblings: int
    acks: int
    hinted: int
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        context = self.context

        siblings = self.siblings

        acks = self.acks

        hinted = self.hinted

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "context": context,
                "siblings": siblings,
                "acks": acks,
                "hinted": hinted,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        context = d.pop("context")

        siblings = d.pop("siblings")

        acks = d.pop("acks")

        hinted = d.pop("hinted")

        written = cls(
            context=context,
            siblings=siblings,
            acks=acks,
            hinted=hinted,
        )

        written.additional_properties = d
        return written

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
