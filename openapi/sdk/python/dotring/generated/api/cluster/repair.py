from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.problem import Problem
from ...models.repair_request import RepairRequest
from ...models.repair_response import RepairResponse
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    body: RepairRequest | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(kv_request_id, Unset):
        headers["Kv-Request-Id"] = kv_request_id

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/cluster:repair",
    }

    if not isinstance(body, Unset):
        _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Problem | RepairResponse | None:
    if response.status_code == 200:
        response_200 = RepairResponse.from_dict(response.json())

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

    if response.status_code == 413:
        response_413 = Problem.from_dict(response.json())

        return response_413

    if response.status_code == 414:
        response_414 = Problem.from_dict(response.json())

        return response_414

    if response.status_code == 415:
        response_415 = Problem.from_dict(response.json())

        return response_415

    if response.status_code == 429:
        response_429 = Problem.from_dict(response.json())

        return response_429

    if response.status_code == 500:
        response_500 = Problem.from_dict(response.json())

        return response_500

    if response.status_code == 503:
        response_503 = Problem.from_dict(response.json())

        return response_503

    if response.status_code == 504:
        response_504 = Problem.from_dict(response.json())

        return response_504

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[Problem | RepairResponse]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: RepairRequest | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> Response[Problem | RepairResponse]:
    """Answer when all hints and differences known at the start are gone.

     A sync point. First every hint that was kept at the start is delivered, then every owner compares
    with every other one from
    the beginning and fetches what it lacks. `done` says that this has happened; otherwise `waiting`
    says what is missing, and
    `token` names the point, to wait for the same one in a further request, through any gateway. A node
    that is away is waited
    for. With `node` only what that node keeps, lacks or is to get counts; with a prefix only hints of
    such keys are waited for.

    Args:
        kv_request_id (str | Unset):
        body (RepairRequest | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | RepairResponse]
    """

    kwargs = _get_kwargs(
        body=body,
        kv_request_id=kv_request_id,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    body: RepairRequest | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> Problem | RepairResponse | None:
    """Answer when all hints and differences known at the start are gone.

     A sync point. First every hint that was kept at the start is delivered, then every owner compares
    with every other one from
    the beginning and fetches what it lacks. `done` says that this has happened; otherwise `waiting`
    says what is missing, and
    `token` names the point, to wait for the same one in a further request, through any gateway. A node
    that is away is waited
    for. With `node` only what that node keeps, lacks or is to get counts; with a prefix only hints of
    such keys are waited for.

    Args:
        kv_request_id (str | Unset):
        body (RepairRequest | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | RepairResponse
    """

    return sync_detailed(
        client=client,
        body=body,
        kv_request_id=kv_request_id,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: RepairRequest | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> Response[Problem | RepairResponse]:
    """Answer when all hints and differences known at the start are gone.

     A sync point. First every hint that was kept at the start is delivered, then every owner compares
    with every other one from
    the beginning and fetches what it lacks. `done` says that this has happened; otherwise `waiting`
    says what is missing, and
    `token` names the point, to wait for the same one in a further request, through any gateway. A node
    that is away is waited
    for. With `node` only what that node keeps, lacks or is to get counts; with a prefix only hints of
    such keys are waited for.

    Args:
        kv_request_id (str | Unset):
        body (RepairRequest | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | RepairResponse]
    """

    kwargs = _get_kwargs(
        body=body,
        kv_request_id=kv_request_id,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    body: RepairRequest | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> Problem | RepairResponse | None:
    """Answer when all hints and differences known at the start are gone.

     A sync point. First every hint that was kept at the start is delivered, then every owner compares
    with every other one from
    the beginning and fetches what it lacks. `done` says that this has happened; otherwise `waiting`
    says what is missing, and
    `token` names the point, to wait for the same one in a further request, through any gateway. A node
    that is away is waited
    for. With `node` only what that node keeps, lacks or is to get counts; with a prefix only hints of
    such keys are waited for.

    Args:
        kv_request_id (str | Unset):
        body (RepairRequest | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | RepairResponse
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
            kv_request_id=kv_request_id,
        )
    ).parsed
