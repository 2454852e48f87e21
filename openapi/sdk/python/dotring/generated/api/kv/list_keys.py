from http import HTTPStatus
from typing import Any

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.list_keys_response import ListKeysResponse
from ...models.problem import Problem
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    prefix: str | Unset = UNSET,
    prefix_base64: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(kv_request_id, Unset):
        headers["Kv-Request-Id"] = kv_request_id

    params: dict[str, Any] = {}

    params["prefix"] = prefix

    params["prefix_base64"] = prefix_base64

    params["limit"] = limit

    params["cursor"] = cursor

    params["timeout"] = timeout

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/kv",
        "params": params,
    }

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> ListKeysResponse | Problem | None:
    if response.status_code == 200:
        response_200 = ListKeysResponse.from_dict(response.json())

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

    if response.status_code == 504:
        response_504 = Problem.from_dict(response.json())

        return response_504

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[ListKeysResponse | Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    prefix: str | Unset = UNSET,
    prefix_base64: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> Response[ListKeysResponse | Problem]:
    """List keys by prefix.

     A page of keys, in no meaningful order; it may be empty although more follow: go on until `cursor`
    is empty. Weakly consistent: a
    key that is there from before the first page to after the last is in one of them; others may be. All
    keys of the cluster are
    gone through, whatever the prefix, so that this is for operators and for moving data, and comes
    after all other requests. The
    token must allow `get` of the prefix; longer keys that it does not allow are left out.

    Args:
        prefix (str | Unset):
        prefix_base64 (str | Unset):
        limit (int | Unset):
        cursor (str | Unset):
        timeout (str | Unset): A Go duration.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ListKeysResponse | Problem]
    """

    kwargs = _get_kwargs(
        prefix=prefix,
        prefix_base64=prefix_base64,
        limit=limit,
        cursor=cursor,
        timeout=timeout,
        kv_request_id=kv_request_id,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    prefix: str | Unset = UNSET,
    prefix_base64: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> ListKeysResponse | Problem | None:
    """List keys by prefix.

     A page of keys, in no meaningful order; it may be empty although more follow: go on until `cursor`
    is empty. Weakly consistent: a
    key that is there from before the first page to after the last is in one of them; others may be. All
    keys of the cluster are
    gone through, whatever the prefix, so that this is for operators and for moving data, and comes
    after all other requests. The
    token must allow `get` of the prefix; longer keys that it does not allow are left out.

    Args:
        prefix (str | Unset):
        prefix_base64 (str | Unset):
        limit (int | Unset):
        cursor (str | Unset):
        timeout (str | Unset): A Go duration.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ListKeysResponse | Problem
    """

    return sync_detailed(
        client=client,
        prefix=prefix,
        prefix_base64=prefix_base64,
        limit=limit,
        cursor=cursor,
        timeout=timeout,
        kv_request_id=kv_request_id,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    prefix: str | Unset = UNSET,
    prefix_base64: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> Response[ListKeysResponse | Problem]:
    """List keys by prefix.

     A page of keys, in no meaningful order; it may be empty although more follow: go on until `cursor`
    is empty. Weakly consistent: a
    key that is there from before the first page to after the last is in one of them; others may be. All
    keys of the cluster are
    gone through, whatever the prefix, so that this is for operators and for moving data, and comes
    after all other requests. The
    token must allow `get` of the prefix; longer keys that it does not allow are left out.

    Args:
        prefix (str | Unset):
        prefix_base64 (str | Unset):
        limit (int | Unset):
        cursor (str | Unset):
        timeout (str | Unset): A Go duration.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[ListKeysResponse | Problem]
    """

    kwargs = _get_kwargs(
        prefix=prefix,
        prefix_base64=prefix_base64,
        limit=limit,
        cursor=cursor,
        timeout=timeout,
        kv_request_id=kv_request_id,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    prefix: str | Unset = UNSET,
    prefix_base64: str | Unset = UNSET,
    limit: int | Unset = UNSET,
    cursor: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> ListKeysResponse | Problem | None:
    """List keys by prefix.

     A page of keys, in no meaningful order; it may be empty although more follow: go on until `cursor`
    is empty. Weakly consistent: a
    key that is there from before the first page to after the last is in one of them; others may be. All
    keys of the cluster are
    gone through, whatever the prefix, so that this is for operators and for moving data, and comes
    after all other requests. The
    token must allow `get` of the prefix; longer keys that it does not allow are left out.

    Args:
        prefix (str | Unset):
        prefix_base64 (str | Unset):
        limit (int | Unset):
        cursor (str | Unset):
        timeout (str | Unset): A Go duration.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        ListKeysResponse | Problem
    """

    return (
        await asyncio_detailed(
            client=client,
            prefix=prefix,
            prefix_base64=prefix_base64,
            limit=limit,
            cursor=cursor,
            timeout=timeout,
            kv_request_id=kv_request_id,
        )
    ).parsed
