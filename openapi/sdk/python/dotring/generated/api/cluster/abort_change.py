from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.layout_change import LayoutChange
from ...models.problem import Problem
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    dry_run: bool | Unset = False,
    kv_request_id: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(kv_request_id, Unset):
        headers["Kv-Request-Id"] = kv_request_id

    params: dict[str, Any] = {}

    params["dry_run"] = dry_run

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/cluster:abort",
        "params": params,
    }

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> LayoutChange | Problem | None:
    if response.status_code == 200:
        response_200 = LayoutChange.from_dict(response.json())

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

    if response.status_code == 409:
        response_409 = Problem.from_dict(response.json())

        return response_409

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

    if response.status_code == 504:
        response_504 = Problem.from_dict(response.json())

        return response_504

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[LayoutChange | Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    dry_run: bool | Unset = False,
    kv_request_id: str | Unset = UNSET,
) -> Response[LayoutChange | Problem]:
    """Give up the change of the layout that is under way.

     What was begun is taken back by a further change; removals of dead nodes go on. Refused where
    nothing is under way that could be given up:
    once all nodes have synced a change it is all but done.

    Args:
        dry_run (bool | Unset):  Default: False.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[LayoutChange | Problem]
    """

    kwargs = _get_kwargs(
        dry_run=dry_run,
        kv_request_id=kv_request_id,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    dry_run: bool | Unset = False,
    kv_request_id: str | Unset = UNSET,
) -> LayoutChange | Problem | None:
    """Give up the change of the layout that is under way.

     What was begun is taken back by a further change; removals of dead nodes go on. Refused where
    nothing is under way that could be given up:
    once all nodes have synced a change it is all but done.

    Args:
        dry_run (bool | Unset):  Default: False.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        LayoutChange | Problem
    """

    return sync_detailed(
        client=client,
        dry_run=dry_run,
        kv_request_id=kv_request_id,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    dry_run: bool | Unset = False,
    kv_request_id: str | Unset = UNSET,
) -> Response[LayoutChange | Problem]:
    """Give up the change of the layout that is under way.

     What was begun is taken back by a further change; removals of dead nodes go on. Refused where
    nothing is under way that could be given up:
    once all nodes have synced a change it is all but done.

    Args:
        dry_run (bool | Unset):  Default: False.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[LayoutChange | Problem]
    """

    kwargs = _get_kwargs(
        dry_run=dry_run,
        kv_request_id=kv_request_id,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    dry_run: bool | Unset = False,
    kv_request_id: str | Unset = UNSET,
) -> LayoutChange | Problem | None:
    """Give up the change of the layout that is under way.

     What was begun is taken back by a further change; removals of dead nodes go on. Refused where
    nothing is under way that could be given up:
    once all nodes have synced a change it is all but done.

    Args:
        dry_run (bool | Unset):  Default: False.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        LayoutChange | Problem
    """

    return (
        await asyncio_detailed(
            client=client,
            dry_run=dry_run,
            kv_request_id=kv_request_id,
        )
    ).parsed
