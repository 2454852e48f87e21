from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

from ..types import UNSET, Unset

T = TypeVar("T", bound="RepairRequest")


@_attrs_define
class RepairRequest:
    """
    Attributes:
        node (str | Unset): The name of a node; empty or absent is the whole cluster.
        key_prefix (str | Unset):
        key_prefix_base64 (str | Unset): Where the prefix is not UTF-8.
        timeout (str | Unset): A Go duration; empty is the default.
        token (str | Unset): Of an earlier answer.
    """

    node: str | Unset = UNSET
    key_prefix: str | Unset = UNSET
    key_prefix_base64: str | Unset = UNSET
    timeout: str | Unset = UNSET
    token: str | Unset = UNSET

    def to_dict(self) -> dict[str, Any]:
        node = self.node

        key_prefix = self.key_prefix

        key_prefix_base64 = self.key_prefix_base64

        timeout = self.timeout

        token = self.token

        field_dict: dict[str, Any] = {}

        field_dict.update({})
        if node is not UNSET:
            field_dict["node"] = node
        if key_prefix is not UNSET:
            field_dict["key_prefix"] = key_prefix
        if key_prefix_base64 is not UNSET:
            field_dict["key_prefix_base64"] = key_prefix_base64
        if timeout is not UNSET:
            field_dict["timeout"] = timeout
        if token is not UNSET:
            field_dict["token"] = token

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        node = d.pop("node", UNSET)

        key_prefix = d.pop("key_prefix", UNSET)

        key_prefix_base64 = d.pop("key_prefix_base64", UNSET)

        timeout = d.pop("timeout", UNSET)

        token = d.pop("token", UNSET)

        repair_request = cls(
            node=node,
            key_prefix=key_prefix,
            key_prefix_base64=key_prefix_base64,
            timeout=timeout,
            token=token,
        )

        return repair_request
