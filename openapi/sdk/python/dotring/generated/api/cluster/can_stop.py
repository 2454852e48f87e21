from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.can_stop import CanStop
from ...models.problem import Problem
from ...types import UNSET, Response, Unset


def _get_kwargs(
    node: str,
    *,
    kv_request_id: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(kv_request_id, Unset):
        headers["Kv-Request-Id"] = kv_request_id

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/cluster/nodes/{node}:canStop".format(
            node=quote(str(node), safe=""),
        ),
    }

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> CanStop | Problem | None:
    if response.status_code == 200:
        response_200 = CanStop.from_dict(response.json())

        return response_200

    if response.status_code == 400:
        response_400 = Problem.from_dict(response.json())

        return response_400

    if response.status_code == 401:
        response_401 = Problem.from_dict(response.json())

        return response_401

    if response.status_code == 403:
        response_403 = Problem.from_dict(response.json())

        return response_403

    if response.status_code == 404:
        response_404 = Problem.from_dict(response.json())

        return response_404

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
) -> Response[CanStop | Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    node: str,
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> Response[CanStop | Problem]:
    """Whether a node may stop now without any key losing its quorum.

     Every live layout is looked at. A copy counts where its node answers, was not found to lack anything
    (writes that others keep for it,
    data that its disk lost), and has synced the layout.

    Args:
        node (str):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[CanStop | Problem]
    """

    kwargs = _get_kwargs(
        node=node,
        kv_request_id=kv_request_id,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    node: str,
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> CanStop | Problem | None:
    """Whether a node may stop now without any key losing its quorum.

     Every live layout is looked at. A copy counts where its node answers, was not found to lack anything
    (writes that others keep for it,
    data that its disk lost), and has synced the layout.

    Args:
        node (str):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        CanStop | Problem
    """

    return sync_detailed(
        node=node,
        client=client,
        kv_request_id=kv_request_id,
    ).parsed


async def asyncio_detailed(
    node: str,
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> Response[CanStop | Problem]:
    """Whether a node may stop now without any key losing its quorum.

     Every live layout is looked at. A copy counts where its node answers, was not found to lack anything
    (writes that others keep for it,
    data that its disk lost), and has synced the layout.

    Args:
        node (str):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[CanStop | Problem]
    """

    kwargs = _get_kwargs(
        node=node,
        kv_request_id=kv_request_id,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    node: str,
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> CanStop | Problem | None:
    """Whether a node may stop now without any key losing its quorum.

     Every live layout is looked at. A copy counts where its node answers, was not found to lack anything
    (writes that others keep for it,
    data that its disk lost), and has synced the layout.

    Args:
        node (str):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        CanStop | Problem
    """

    return (
        await asyncio_detailed(
            node=node,
            client=client,
            kv_request_id=kv_request_id,
        )
    ).parsed
