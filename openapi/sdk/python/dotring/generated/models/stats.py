from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.operation_stats import OperationStats


T = TypeVar("T", bound="Stats")


@_attrs_define
class Stats:
    """
    Attributes:
        gateway (str):
        window_seconds (float): Over how many seconds; 0 in the first second.
        operations (list[OperationStats]):
    """

    gateway: str
    window_seconds: float
    operations: list[OperationStats]
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        gateway = self.gateway

        window_seconds = self.window_seconds

        operations = []
        for operations_item_data in self.operations:
            operations_item = operations_item_data.to_dict()
            operations.append(operations_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "gateway": gateway,
                "window_seconds": window_seconds,
                "operations": operations,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.operation_stats import OperationStats

        d = dict(src_dict)
        gateway = d.pop("gateway")

        window_seconds = d.pop("window_seconds")

        operations = []
        _operations = d.pop("operations")
        for operations_item_data in _operations:
            operations_item = OperationStats.from_dict(operations_item_data)

            operations.append(operations_item)

        stats = cls(
            gateway=gateway,
            window_seconds=window_seconds,
            operations=operations,
        )

        stats.additional_properties = d
        return stats

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
