from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.node_status import NodeStatus

T = TypeVar("T", bound="Node")


@_attrs_define
class Node:
    """
    Attributes:
        id (str): 32 hexadecimal digits.
        name (str):
        zone (str):
        weight (float):
        status (NodeStatus): As gossip sees it.
        connected (bool): Whether this gateway has a working stream to it.
        phi (float): Suspicion of this gateway's failure detector; 8 and more is passed over.
        grpc_addr (str):
        gossip_addr (str):
        admin_addr (str):
        actor (str):
        tokens (int):
        share (float): The part of all keys it holds a replica of.
        keys (str): A number from 0 to 2^64-1.
        disk_bytes (str): A number from 0 to 2^64-1.
        acked_epoch (str): A number from 0 to 2^64-1.
        synced_epoch (str): A number from 0 to 2^64-1.
        engine (str):
        started (datetime.datetime | None):
        error (str): Why the node could not be asked; empty where it answered.
        hints (str): A number from 0 to 2^64-1.
        hint_bytes (str): A number from 0 to 2^64-1.
        answers_per_second (float): Answers that this gateway got from it lately.
        read_mean_seconds (float): How long reads take it; 0 where not known.
        read_p95_seconds (float): What one read in twenty exceeds.
        sees_alive (int): How many members it sees alive by gossip.
        gossip_digest (str): Of what it sees of all members: where gossip has converged, all nodes that answer have the
            same.
        state (str): In one word, as it says itself: ready, joining, refilling, draining and the like.
        version (str):
        clock_ahead_seconds (float): How far its clock is before the gateway's; below 0 it is behind.
        disk_free_bytes (str): A number from 0 to 2^64-1.
        disk_total_bytes (str): A number from 0 to 2^64-1.
        anti_entropy_age_seconds (float): Since the oldest whole comparison with another owner; 0 where none is due.
        certificate_ends (datetime.datetime | None): When its certificate ends; none without one.
    """

    id: str
    name: str
    zone: str
    weight: float
    status: NodeStatus
    connected: bool
    phi: float
    grpc_addr: str
    gossip_addr: str
    admin_addr: str
    actor: str
    tokens: int
    share: float
    keys: str
    disk_bytes: str
    acked_epoch: str
    synced_epoch: str
    engine: str
    started: datetime.datetime | None
    error: str
    hints: str
    hint_bytes: str
    answers_per_second: float
    read_mean_seconds: float
    read_p95_seconds: float
    sees_alive: int
    gossip_digest: str
    state: str
    version: str
    clock_ahead_seconds: float
    disk_free_bytes: str
    disk_total_bytes: str
    anti_entropy_age_seconds: float
    certificate_ends: datetime.datetime | None
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        id = self.id

        name = self.name

        zone = self.zone

        weight = self.weight

        status = self.status.value

        connected = self.connected

        phi = self.phi

        grpc_addr = self.grpc_addr

        gossip_addr = self.gossip_addr

        admin_addr = self.admin_addr

        actor = self.actor

        tokens = self.tokens

        share = self.share

        keys = self.keys

        disk_bytes = self.disk_bytes

        acked_epoch = self.acked_epoch

        synced_epoch = self.synced_epoch

        engine = self.engine

        started: None | str
        if isinstance(self.started, datetime.datetime):
            started = self.started.isoformat()
        else:
            started = self.started

        error = self.error

        hints = self.hints

        hint_bytes = self.hint_bytes

        answers_per_second = self.answers_per_second

        read_mean_seconds = self.read_mean_seconds

        read_p95_seconds = self.read_p95_seconds

        sees_alive = self.sees_alive

        gossip_digest = self.gossip_digest

        state = self.state

        version = self.version

        clock_ahead_seconds = self.clock_ahead_seconds

        disk_free_bytes = self.disk_free_bytes

        disk_total_bytes = self.disk_total_bytes

        anti_entropy_age_seconds = self.anti_entropy_age_seconds

        certificate_ends: None | str
        if isinstance(self.certificate_ends, datetime.datetime):
            certificate_ends = self.certificate_ends.isoformat()
        else:
            certificate_ends = self.certificate_ends

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "id": id,
                "name": name,
                "zone": zone,
                "weight": weight,
                "status": status,
                "connected": connected,
                "phi": phi,
                "grpc_addr": grpc_addr,
                "gossip_addr": gossip_addr,
                "admin_addr": admin_addr,
                "actor": actor,
                "tokens": tokens,
                "share": share,
                "keys": keys,
                "disk_bytes": disk_bytes,
                "acked_epoch": acked_epoch,
                "synced_epoch": synced_epoch,
                "engine": engine,
                "started": started,
                "error": error,
                "hints": hints,
                "hint_bytes": hint_bytes,
                "answers_per_second": answers_per_second,
                "read_mean_seconds": read_mean_seconds,
                "read_p95_seconds": read_p95_seconds,
                "sees_alive": sees_alive,
                "gossip_digest": gossip_digest,
                "state": state,
                "version": version,
                "clock_ahead_seconds": clock_ahead_seconds,
                "disk_free_bytes": disk_free_bytes,
                "disk_total_bytes": disk_total_bytes,
                "anti_entropy_age_seconds": anti_entropy_age_seconds,
                "certificate_ends": certificate_ends,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        id = d.pop("id")

        name = d.pop("name")

        zone = d.pop("zone")

        weight = d.pop("weight")

        status = NodeStatus(d.pop("status"))

        connected = d.pop("connected")

        phi = d.pop("phi")

        grpc_addr = d.pop("grpc_addr")

        gossip_addr = d.pop("gossip_addr")

        admin_addr = d.pop("admin_addr")

        actor = d.pop("actor")

        tokens = d.pop("tokens")

        share = d.pop("share")

        keys = d.pop("keys")

        disk_bytes = d.pop("disk_bytes")

        acked_epoch = d.pop("acked_epoch")

        synced_epoch = d.pop("synced_epoch")

        engine = d.pop("engine")

        def _parse_started(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                started_type_0 = datetime.datetime.fromisoformat(data)

                return started_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        started = _parse_started(d.pop("started"))

        error = d.pop("error")

        hints = d.pop("hints")

        hint_bytes = d.pop("hint_bytes")

        answers_per_second = d.pop("answers_per_second")

        read_mean_seconds = d.pop("read_mean_seconds")

        read_p95_seconds = d.pop("read_p95_seconds")

        sees_alive = d.pop("sees_alive")

        gossip_digest = d.pop("gossip_digest")

        state = d.pop("state")

        version = d.pop("version")

        clock_ahead_seconds = d.pop("clock_ahead_seconds")

        disk_free_bytes = d.pop("disk_free_bytes")

        disk_total_bytes = d.pop("disk_total_bytes")

        anti_entropy_age_seconds = d.pop("anti_entropy_age_seconds")

        def _parse_certificate_ends(data: object) -> datetime.datetime | None:
            if data is None:
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                certificate_ends_type_0 = datetime.datetime.fromisoformat(data)

                return certificate_ends_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None, data)

        certificate_ends = _parse_certificate_ends(d.pop("certificate_ends"))

        node = cls(
            id=id,
            name=name,
            zone=zone,
            weight=weight,
            status=status,
            connected=connected,
            phi=phi,
            grpc_addr=grpc_addr,
            gossip_addr=gossip_addr,
            admin_addr=admin_addr,
            actor=actor,
            tokens=tokens,
            share=share,
            keys=keys,
            disk_bytes=disk_bytes,
            acked_epoch=acked_epoch,
            synced_epoch=synced_epoch,
            engine=engine,
            started=started,
            error=error,
            hints=hints,
            hint_bytes=hint_bytes,
            answers_per_second=answers_per_second,
            read_mean_seconds=read_mean_seconds,
            read_p95_seconds=read_p95_seconds,
            sees_alive=sees_alive,
            gossip_digest=gossip_digest,
            state=state,
            version=version,
            clock_ahead_seconds=clock_ahead_seconds,
            disk_free_bytes=disk_free_bytes,
            disk_total_bytes=disk_total_bytes,
            anti_entropy_age_seconds=anti_entropy_age_seconds,
            certificate_ends=certificate_ends,
        )

        node.additional_properties = d
        return node

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
