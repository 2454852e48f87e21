from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.batch_put_request import BatchPutRequest
from ...models.batch_write_response import BatchWriteResponse
from ...models.problem import Problem
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    body: BatchPutRequest,
    kv_request_id: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(kv_request_id, Unset):
        headers["Kv-Request-Id"] = kv_request_id

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/v1/kv:batchPut",
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> BatchWriteResponse | Problem | None:
    if response.status_code == 200:
        response_200 = BatchWriteResponse.from_dict(response.json())

        return response_200

    if response.status_code == 400:
        response_400 = Problem.from_dict(response.json())

        return response_400

    if response.status_code == 401:
        response_401 = Problem.from_dict(response.json())

        return response_401

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

    if response.status_code == 504:
        response_504 = Problem.from_dict(response.json())

        return response_504

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[BatchWriteResponse | Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: BatchPutRequest,
    kv_request_id: str | Unset = UNSET,
) -> Response[BatchWriteResponse | Problem]:
    """Write several keys.

     At most 100 items and 3 MiB. 200 says that the batch was taken: each item has a status of its own,
    the one that it would
    have as a single request, and its `problem` where it failed. Items are independent of each other.

    Args:
        kv_request_id (str | Unset):
        body (BatchPutRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BatchWriteResponse | Problem]
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
    body: BatchPutRequest,
    kv_request_id: str | Unset = UNSET,
) -> BatchWriteResponse | Problem | None:
    """Write several keys.

     At most 100 items and 3 MiB. 200 says that the batch was taken: each item has a status of its own,
    the one that it would
    have as a single request, and its `problem` where it failed. Items are independent of each other.

    Args:
        kv_request_id (str | Unset):
        body (BatchPutRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        BatchWriteResponse | Problem
    """

    return sync_detailed(
        client=client,
        body=body,
        kv_request_id=kv_request_id,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: BatchPutRequest,
    kv_request_id: str | Unset = UNSET,
) -> Response[BatchWriteResponse | Problem]:
    """Write several keys.

     At most 100 items and 3 MiB. 200 says that the batch was taken: each item has a status of its own,
    the one that it would
    have as a single request, and its `problem` where it failed. Items are independent of each other.

    Args:
        kv_request_id (str | Unset):
        body (BatchPutRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[BatchWriteResponse | Problem]
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
    body: BatchPutRequest,
    kv_request_id: str | Unset = UNSET,
) -> BatchWriteResponse | Problem | None:
    """Write several keys.

     At most 100 items and 3 MiB. 200 says that the batch was taken: each item has a status of its own,
    the one that it would
    have as a single request, and its `problem` where it failed. Items are independent of each other.

    Args:
        kv_request_id (str | Unset):
        body (BatchPutRequest):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        BatchWriteResponse | Problem
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
            kv_request_id=kv_request_id,
        )
    ).parsed
