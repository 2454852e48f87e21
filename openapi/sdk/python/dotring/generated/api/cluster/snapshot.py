from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.problem import Problem
from ...models.snapshot_part import SnapshotPart
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    node: str,
    part: SnapshotPart,
    kv_request_id: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(kv_request_id, Unset):
        headers["Kv-Request-Id"] = kv_request_id

    params: dict[str, Any] = {}

    params["node"] = node

    json_part = part.value
    params["part"] = json_part

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/cluster:snapshot",
        "params": params,
    }

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Problem | None:
    if response.status_code == 400:
        response_400 = Problem.from_dict(response.json())

        return response_400

    if response.status_code == 401:
        response_401 = Problem.from_dict(response.json())

        return response_401

    if response.status_code == 403:
        response_403 = Problem.from_dict(response.json())

        return response_403

    if response.status_code == 414:
        response_414 = Problem.from_dict(response.json())

        return response_414

    if response.status_code == 429:
        response_429 = Problem.from_dict(response.json())

        return response_429

    if response.status_code == 500:
        response_500 = Problem.from_dict(response.json())

        return response_500

    if response.status_code == 503:
        response_503 = Problem.from_dict(response.json())

        return response_503

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    node: str,
    part: SnapshotPart,
    kv_request_id: str | Unset = UNSET,
) -> Response[Problem]:
    """What a node holds, as it was at one moment.

     For backups; `dotringctl backup` reads all nodes and says whether that is everything. The moment has
    passed when the answer
    begins. Writes go on meanwhile. The answer is a file as `gateway/backup/FORMAT.md` describes it: one
    without its end is not whole.

    Args:
        node (str):
        part (SnapshotPart):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem]
    """

    kwargs = _get_kwargs(
        node=node,
        part=part,
        kv_request_id=kv_request_id,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    node: str,
    part: SnapshotPart,
    kv_request_id: str | Unset = UNSET,
) -> Problem | None:
    """What a node holds, as it was at one moment.

     For backups; `dotringctl backup` reads all nodes and says whether that is everything. The moment has
    passed when the answer
    begins. Writes go on meanwhile. The answer is a file as `gateway/backup/FORMAT.md` describes it: one
    without its end is not whole.

    Args:
        node (str):
        part (SnapshotPart):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem
    """

    return sync_detailed(
        client=client,
        node=node,
        part=part,
        kv_request_id=kv_request_id,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    node: str,
    part: SnapshotPart,
    kv_request_id: str | Unset = UNSET,
) -> Response[Problem]:
    """What a node holds, as it was at one moment.

     For backups; `dotringctl backup` reads all nodes and says whether that is everything. The moment has
    passed when the answer
    begins. Writes go on meanwhile. The answer is a file as `gateway/backup/FORMAT.md` describes it: one
    without its end is not whole.

    Args:
        node (str):
        part (SnapshotPart):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem]
    """

    kwargs = _get_kwargs(
        node=node,
        part=part,
        kv_request_id=kv_request_id,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    node: str,
    part: SnapshotPart,
    kv_request_id: str | Unset = UNSET,
) -> Problem | None:
    """What a node holds, as it was at one moment.

     For backups; `dotringctl backup` reads all nodes and says whether that is everything. The moment has
    passed when the answer
    begins. Writes go on meanwhile. The answer is a file as `gateway/backup/FORMAT.md` describes it: one
    without its end is not whole.

    Args:
        node (str):
        part (SnapshotPart):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem
    """

    return (
        await asyncio_detailed(
            client=client,
            node=node,
            part=part,
            kv_request_id=kv_request_id,
        )
    ).parsed
