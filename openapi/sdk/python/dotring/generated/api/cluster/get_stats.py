from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.problem import Problem
from ...models.stats import Stats
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    kv_request_id: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(kv_request_id, Unset):
        headers["Kv-Request-Id"] = kv_request_id

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/cluster/stats",
    }

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Problem | Stats | None:
    if response.status_code == 200:
        response_200 = Stats.from_dict(response.json())

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

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[Problem | Stats]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> Response[Problem | Stats]:
    """How many operations there were lately, and how long they took.

     Over the last ten seconds, at the gateway that answers, for every gateway counts what goes through
    itself: ask each. Items of batches
    count as gets, puts and deletes. Latencies count from when an operation was let in; what is refused
    before is not among them.

    Args:
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | Stats]
    """

    kwargs = _get_kwargs(
        kv_request_id=kv_request_id,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> Problem | Stats | None:
    """How many operations there were lately, and how long they took.

     Over the last ten seconds, at the gateway that answers, for every gateway counts what goes through
    itself: ask each. Items of batches
    count as gets, puts and deletes. Latencies count from when an operation was let in; what is refused
    before is not among them.

    Args:
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | Stats
    """

    return sync_detailed(
        client=client,
        kv_request_id=kv_request_id,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> Response[Problem | Stats]:
    """How many operations there were lately, and how long they took.

     Over the last ten seconds, at the gateway that answers, for every gateway counts what goes through
    itself: ask each. Items of batches
    count as gets, puts and deletes. Latencies count from when an operation was let in; what is refused
    before is not among them.

    Args:
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | Stats]
    """

    kwargs = _get_kwargs(
        kv_request_id=kv_request_id,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    kv_request_id: str | Unset = UNSET,
) -> Problem | Stats | None:
    """How many operations there were lately, and how long they took.

     Over the last ten seconds, at the gateway that answers, for every gateway counts what goes through
    itself: ask each. Items of batches
    count as gets, puts and deletes. Latencies count from when an operation was let in; what is refused
    before is not among them.

    Args:
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | Stats
    """

    return (
        await asyncio_detailed(
            client=client,
            kv_request_id=kv_request_id,
        )
    ).parsed
