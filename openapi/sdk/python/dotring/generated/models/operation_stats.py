from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.operation_stats_operation import OperationStatsOperation

T = TypeVar("T", bound="OperationStats")


@_attrs_define
class OperationStats:
    """
    Attributes:
        operation (OperationStatsOperation):
        per_second (float):
        failed_per_second (float): Those of them that failed.
        p50_seconds (float): What half did not exceed; 0 where there was none.
        p99_seconds (float): What 99 of 100 did not exceed.
    """

    operation: OperationStatsOperation
    per_second: float
    failed_per_second: float
    p50_seconds: float
    p99_seconds: float
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        operation = self.operation.value

        per_second = self.per_second

        failed_per_second = self.failed_per_second

        p50_seconds = self.p50_seconds

        p99_seconds = self.p99_seconds

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "operation": operation,
                "per_second": per_second,
                "failed_per_second": failed_per_second,
                "p50_seconds": p50_seconds,
                "p99_seconds": p99_seconds,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        operation = OperationStatsOperation(d.pop("operation"))

        per_second = d.pop("per_second")

        failed_per_second = d.pop("failed_per_second")

        p50_seconds = d.pop("p50_seconds")

        p99_seconds = d.pop("p99_seconds")

        operation_stats = cls(
            operation=operation,
            per_second=per_second,
            failed_per_second=failed_per_second,
            p50_seconds=p50_seconds,
            p99_seconds=p99_seconds,
        )

        operation_stats.additional_properties = d
        return operation_stats

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
