from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.inspection import Inspection
from ...models.problem import Problem
from ...types import UNSET, Response, Unset


def _get_kwargs(
    key: str,
    *,
    kv_request_id: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(kv_request_id, Unset):
        headers["Kv-Request-Id"] = kv_request_id

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/cluster/keys/{key}".format(
            key=quote(str(key), safe=""),
        ),
    }

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Inspection | Problem | None:
    if response.status_code == 200:
        response_200 = Inspection.from_dict(response.json())

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
) -> Response[Inspection | Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    key: str,
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> Response[Inspection | Problem]:
    """A key's preference list, with what each replica holds.

     Every replica is asked, and nothing is repaired. A replica that does not answer within two seconds
    has `state` failed.

    Args:
        key (str):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Inspection | Problem]
    """

    kwargs = _get_kwargs(
        key=key,
        kv_request_id=kv_request_id,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    key: str,
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> Inspection | Problem | None:
    """A key's preference list, with what each replica holds.

     Every replica is asked, and nothing is repaired. A replica that does not answer within two seconds
    has `state` failed.

    Args:
        key (str):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Inspection | Problem
    """

    return sync_detailed(
        key=key,
        client=client,
        kv_request_id=kv_request_id,
    ).parsed


async def asyncio_detailed(
    key: str,
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> Response[Inspection | Problem]:
    """A key's preference list, with what each replica holds.

     Every replica is asked, and nothing is repaired. A replica that does not answer within two seconds
    has `state` failed.

    Args:
        key (str):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Inspection | Problem]
    """

    kwargs = _get_kwargs(
        key=key,
        kv_request_id=kv_request_id,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    key: str,
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> Inspection | Problem | None:
    """A key's preference list, with what each replica holds.

     Every replica is asked, and nothing is repaired. A replica that does not answer within two seconds
    has `state` failed.

    Args:
        key (str):
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Inspection | Problem
    """

    return (
        await asyncio_detailed(
            key=key,
            client=client,
            kv_request_id=kv_request_id,
        )
    ).parsed
