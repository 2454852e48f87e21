from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.layout_member import LayoutMember
    from ..models.layout_ref import LayoutRef


T = TypeVar("T", bound="Layout")


@_attrs_define
class Layout:
    """
    Attributes:
        ref (LayoutRef):
        base (LayoutRef):
        replicas (int):
        min_write_quorum (int):
        members (list[LayoutMember]):
        acked (list[str]): Members that know it.
        synced (list[str]): Members that hold what it gives them.
        switched (list[str]): Members that serve it.
    """

    ref: LayoutRef
    base: LayoutRef
    replicas: int
    min_write_quorum: int
    members: list[LayoutMember]
    acked: list[str]
    synced: list[str]
    switched: list[str]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        ref = self.ref.to_dict()

        base = self.base.to_dict()

        replicas = self.replicas

        min_write_quorum = self.min_write_quorum

        members = []
        for members_item_data in self.members:
            members_item = members_item_data.to_dict()
            members.append(members_item)

        acked = self.acked

        synced = self.synced

        switched = self.switched

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "ref": ref,
                "base": base,
                "replicas": replicas,
                "min_write_quorum": min_write_quorum,
                "members": members,
                "acked": acked,
                "synced": synced,
                "switched": switched,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.layout_member import LayoutMember
        from ..models.layout_ref import LayoutRef

        d = dict(src_dict)
        ref = LayoutRef.from_dict(d.pop("ref"))

        base = LayoutRef.from_dict(d.pop("base"))

        replicas = d.pop("replicas")

        min_write_quorum = d.pop("min_write_quorum")

        members = []
        _members = d.pop("members")
        for members_item_data in _members:
            members_item = LayoutMember.from_dict(members_item_data)

            members.append(members_item)

        acked = cast(list[str], d.pop("acked"))

        synced = cast(list[str], d.pop("synced"))

        switched = cast(list[str], d.pop("switched"))

        layout = cls(
            ref=ref,
            base=base,
            replicas=replicas,
            min_write_quorum=min_write_quorum,
            members=members,
            acked=acked,
            synced=synced,
            switched=switched,
        )

        layout.additional_properties = d
        return layout

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
