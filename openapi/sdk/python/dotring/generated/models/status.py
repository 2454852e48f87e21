from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.layout_ref import LayoutRef


T = TypeVar("T", bound="Status")


@_attrs_define
class Status:
    """
    Attributes:
        cluster (str): Empty while no cluster is known.
        settled (LayoutRef | None):
        newest (LayoutRef | None):
        changing (bool): Whether the newest layout is not settled yet.
        members (int):
        alive (int): Members that this gateway can use now.
        replicas (int): Copies kept of each key now.
        replicas_configured (int):
        min_write_quorum (int):
        read_quorum (int): The gateway's default of r.
        write_quorum (int): The gateway's default of w.
        promise (str): What the cluster can promise as it is, in one sentence.
        warnings (list[str]): What a person should look at.
        gateway (str):
        version (str):
    """

    cluster: str
    settled: LayoutRef | None
    newest: LayoutRef | None
    changing: bool
    members: int
    alive: int
    replicas: int
    replicas_configured: int
    min_write_quorum: int
    read_quorum: int
    write_quorum: int
    promise: str
    warnings: list[str]
    gateway: str
    version: str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.layout_ref import LayoutRef

        cluster = self.cluster

        settled: dict[str, Any] | None
        if isinstance(self.settled, LayoutRef):
            settled = self.settled.to_dict()
        else:
            settled = self.settled

        newest: dict[str, Any] | None
        if isinstance(self.newest, LayoutRef):
            newest = self.newest.to_dict()
        else:
            newest = self.newest

        changing = self.changing

        members = self.members

        alive = self.alive

        replicas = self.replicas

        replicas_configured = self.replicas_configured

        min_write_quorum = self.min_write_quorum

        read_quorum = self.read_quorum

        write_quorum = self.write_quorum

        promise = self.promise

        warnings = self.warnings

        gateway = self.gateway

        version = self.version

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "cluster": cluster,
                "settled": settled,
                "newest": newest,
                "changing": changing,
                "members": members,
                "alive": alive,
                "replicas": replicas,
                "replicas_configured": replicas_configured,
                "min_write_quorum": min_write_quorum,
                "read_quorum": read_quorum,
                "write_quorum": write_quorum,
                "promise": promise,
                "warnings": warnings,
                "gateway": gateway,
                "version": version,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.layout_ref import LayoutRef

        d = dict(src_dict)
        cluster = d.pop("cluster")

        def _parse_settled(data: object) -> LayoutRef | None:
            if data is None:
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                settled_type_0 = LayoutRef.from_dict(data)

                return settled_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(LayoutRef | None, data)

        settled = _parse_settled(d.pop("settled"))

        def _parse_newest(data: object) -> LayoutRef | None:
            if data is None:
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                newest_type_0 = LayoutRef.from_dict(data)

                return newest_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(LayoutRef | None, data)

        newest = _parse_newest(d.pop("newest"))

        changing = d.pop("changing")

        members = d.pop("members")

        alive = d.pop("alive")

        replicas = d.pop("replicas")

        replicas_configured = d.pop("replicas_configured")

        min_write_quorum = d.pop("min_write_quorum")

        read_quorum = d.pop("read_quorum")

        write_quorum = d.pop("write_quorum")

        promise = d.pop("promise")

        warnings = cast(list[str], d.pop("warnings"))

        gateway = d.pop("gateway")

        version = d.pop("version")

        status = cls(
            cluster=cluster,
            settled=settled,
            newest=newest,
            changing=changing,
            members=members,
            alive=alive,
            replicas=replicas,
            replicas_configured=replicas_configured,
            min_write_quorum=min_write_quorum,
            read_quorum=read_quorum,
            write_quorum=write_quorum,
            promise=promise,
            warnings=warnings,
            gateway=gateway,
            version=version,
        )

        status.additional_properties = d
        return status

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
