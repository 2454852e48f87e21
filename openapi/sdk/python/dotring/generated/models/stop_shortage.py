from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.layout_ref import LayoutRef


T = TypeVar("T", bound="StopShortage")


@_attrs_define
class StopShortage:
    """
    Attributes:
        layout (LayoutRef):
        slots (int):
        owners (list[str]):
        left (list[str]): Owners that are up and complete
        needed (int): How many there must be.
        reasons (list[str]): Why the other owners do not count.
    """

    layout: LayoutRef
    slots: int
    owners: list[str]
    left: list[str]
    needed: int
    reasons: list[str]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        layout = self.layout.to_dict()

        slots = self.slots

        owners = self.owners

        left = self.left

        needed = self.needed

        reasons = self.reasons

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "layout": layout,
                "slots": slots,
                "owners": owners,
                "left": left,
                "needed": needed,
                "reasons": reasons,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.layout_ref import LayoutRef

        d = dict(src_dict)
        layout = LayoutRef.from_dict(d.pop("layout"))

        slots = d.pop("slots")

        owners = cast(list[str], d.pop("owners"))

        left = cast(list[str], d.pop("left"))

        needed = d.pop("needed")

        reasons = cast(list[str], d.pop("reasons"))

        stop_shortage = cls(
            layout=layout,
            slots=slots,
            owners=owners,
            left=left,
            needed=needed,
            reasons=reasons,
        )

        stop_shortage.additional_properties = d
        return stop_shortage

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
