from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.failure_risk import FailureRisk
    from ..models.layout_ref import LayoutRef
    from ..models.move import Move
    from ..models.node_share import NodeShare
    from ..models.slot_range import SlotRange


T = TypeVar("T", bound="LayoutChange")


@_attrs_define
class LayoutChange:
    """
    Attributes:
        dry_run (bool): Nothing was changed.
        settled (LayoutRef):
        layout (LayoutRef):
        nodes (list[NodeShare]): Every node that is or will be a member, by name.
        moves (list[Move]): What changes hands.
        moved_share (float): The part of all copies that changes hands.
        moved_bytes (str): A number from 0 to 2^64-1.
        replicas_before (int):
        replicas_after (int):
        degraded_slots (int): Slots with an owner that does not answer: until the change is done they have fewer copies
            than they should.
        short_slots (int): Slots for which too few sources are left to be sure of every acknowledged write: the change
            waits until the loss is accepted.
        short_ranges (list[SlotRange]): The first of them.
        at_least_seconds (float): How long the node that takes most will fetch at least, by the rate that nodes keep to;
            0 where that is not known or not limited.
        risks (list[FailureRisk]): The chance that nodes failing at once cost some key its quorum, before and after.
    """

    dry_run: bool
    settled: LayoutRef
    layout: LayoutRef
    nodes: list[NodeShare]
    moves: list[Move]
    moved_share: float
    moved_bytes: str
    replicas_before: int
    replicas_after: int
    degraded_slots: int
    short_slots: int
    short_ranges: list[SlotRange]
    at_least_seconds: float
    risks: list[FailureRisk]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        dry_run = self.dry_run

        settled = self.settled.to_dict()

        layout = self.layout.to_dict()

        nodes = []
        for nodes_item_data in self.nodes:
            nodes_item = nodes_item_data.to_dict()
            nodes.append(nodes_item)

        moves = []
        for moves_item_data in self.moves:
            moves_item = moves_item_data.to_dict()
            moves.append(moves_item)

        moved_share = self.moved_share

        moved_bytes = self.moved_bytes

        replicas_before = self.replicas_before

        replicas_after = self.replicas_after

        degraded_slots = self.degraded_slots

        short_slots = self.short_slots

        short_ranges = []
        for short_ranges_item_data in self.short_ranges:
            short_ranges_item = short_ranges_item_data.to_dict()
            short_ranges.append(short_ranges_item)

        at_least_seconds = self.at_least_seconds

        risks = []
        for risks_item_data in self.risks:
            risks_item = risks_item_data.to_dict()
            risks.append(risks_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "dry_run": dry_run,
                "settled": settled,
                "layout": layout,
                "nodes": nodes,
                "moves": moves,
                "moved_share": moved_share,
                "moved_bytes": moved_bytes,
                "replicas_before": replicas_before,
                "replicas_after": replicas_after,
                "degraded_slots": degraded_slots,
                "short_slots": short_slots,
                "short_ranges": short_ranges,
                "at_least_seconds": at_least_seconds,
                "risks": risks,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.failure_risk import FailureRisk
        from ..models.layout_ref import LayoutRef
        from ..models.move import Move
        from ..models.node_share import NodeShare
        from ..models.slot_range import SlotRange

        d = dict(src_dict)
        dry_run = d.pop("dry_run")

        settled = LayoutRef.from_dict(d.pop("settled"))

        layout = LayoutRef.from_dict(d.pop("layout"))

        nodes = []
        _nodes = d.pop("nodes")
        for nodes_item_data in _nodes:
            nodes_item = NodeShare.from_dict(nodes_item_data)

            nodes.append(nodes_item)

        moves = []
        _moves = d.pop("moves")
        for moves_item_data in _moves:
            moves_item = Move.from_dict(moves_item_data)

            moves.append(moves_item)

        moved_share = d.pop("moved_share")

        moved_bytes = d.pop("moved_bytes")

        replicas_before = d.pop("replicas_before")

        replicas_after = d.pop("replicas_after")

        degraded_slots = d.pop("degraded_slots")

        short_slots = d.pop("short_slots")

        short_ranges = []
        _short_ranges = d.pop("short_ranges")
        for short_ranges_item_data in _short_ranges:
            short_ranges_item = SlotRange.from_dict(short_ranges_item_data)

            short_ranges.append(short_ranges_item)

        at_least_seconds = d.pop("at_least_seconds")

        risks = []
        _risks = d.pop("risks")
        for risks_item_data in _risks:
            risks_item = FailureRisk.from_dict(risks_item_data)

            risks.append(risks_item)

        layout_change = cls(
            dry_run=dry_run,
            settled=settled,
            layout=layout,
            nodes=nodes,
            moves=moves,
            moved_share=moved_share,
            moved_bytes=moved_bytes,
            replicas_before=replicas_before,
            replicas_after=replicas_after,
            degraded_slots=degraded_slots,
            short_slots=short_slots,
            short_ranges=short_ranges,
            at_least_seconds=at_least_seconds,
            risks=risks,
        )

        layout_change.additional_properties = d
        return layout_change

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
