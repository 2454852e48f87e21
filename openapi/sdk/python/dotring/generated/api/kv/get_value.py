from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.get_value_conflict import GetValueConflict
from ...models.problem import Problem
from ...models.siblings import Siblings
from ...models.switch import Switch
from ...types import UNSET, Response, Unset


def _get_kwargs(
    key: str,
    *,
    r: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    etag: str | Unset = UNSET,
    conflict: GetValueConflict | Unset = UNSET,
    explain: Switch | Unset = UNSET,
    kv_context: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
    if_none_match: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(kv_context, Unset):
        headers["Kv-Context"] = kv_context

    if not isinstance(kv_request_id, Unset):
        headers["Kv-Request-Id"] = kv_request_id

    if not isinstance(if_none_match, Unset):
        headers["If-None-Match"] = if_none_match

    params: dict[str, Any] = {}

    params["r"] = r

    params["timeout"] = timeout

    params["etag"] = etag

    json_conflict: str | Unset = UNSET
    if not isinstance(conflict, Unset):
        json_conflict = conflict.value

    params["conflict"] = json_conflict

    json_explain: str | Unset = UNSET
    if not isinstance(explain, Unset):
        json_explain = explain.value

    params["explain"] = json_explain

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/kv/{key}".format(
            key=quote(str(key), safe=""),
        ),
        "params": params,
    }

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Any | Problem | Siblings | None:
    if response.status_code == 300:
        response_300 = Siblings.from_dict(response.json())

        return response_300

    if response.status_code == 304:
        response_304 = cast(Any, None)
        return response_304

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

    if response.status_code == 409:
        response_409 = Siblings.from_dict(response.json())

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
) -> Response[Any | Problem | Siblings]:
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
    r: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    etag: str | Unset = UNSET,
    conflict: GetValueConflict | Unset = UNSET,
    explain: Switch | Unset = UNSET,
    kv_context: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
    if_none_match: str | Unset = UNSET,
) -> Response[Any | Problem | Siblings]:
    """Read a value, or its siblings.

     One value is 200, several siblings are 300 (409 under `conflict=error`), no value, or deletions
    alone, 404. Each of them has
    a `Kv-Context`. Resolve siblings by a write with the context of the answer that showed them.
    Siblings come as `multipart/mixed`
    where `Accept` prefers that to JSON; a value always comes as it was stored. `Range` is ignored.

    Args:
        key (str):
        r (str | Unset): A number from 1 to N, `one`, `quorum` (the majority of N) or `all`.
        timeout (str | Unset): A Go duration.
        etag (str | Unset):
        conflict (GetValueConflict | Unset):
        explain (Switch | Unset):
        kv_context (str | Unset): A context. Opaque; URL-safe base64 without padding.
        kv_request_id (str | Unset):
        if_none_match (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Any | Problem | Siblings]
    """

    kwargs = _get_kwargs(
        key=key,
        r=r,
        timeout=timeout,
        etag=etag,
        conflict=conflict,
        explain=explain,
        kv_context=kv_context,
        kv_request_id=kv_request_id,
        if_none_match=if_none_match,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    key: str,
    *,
    client: AuthenticatedClient | Client,
    r: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    etag: str | Unset = UNSET,
    conflict: GetValueConflict | Unset = UNSET,
    explain: Switch | Unset = UNSET,
    kv_context: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
    if_none_match: str | Unset = UNSET,
) -> Any | Problem | Siblings | None:
    """Read a value, or its siblings.

     One value is 200, several siblings are 300 (409 under `conflict=error`), no value, or deletions
    alone, 404. Each of them has
    a `Kv-Context`. Resolve siblings by a write with the context of the answer that showed them.
    Siblings come as `multipart/mixed`
    where `Accept` prefers that to JSON; a value always comes as it was stored. `Range` is ignored.

    Args:
        key (str):
        r (str | Unset): A number from 1 to N, `one`, `quorum` (the majority of N) or `all`.
        timeout (str | Unset): A Go duration.
        etag (str | Unset):
        conflict (GetValueConflict | Unset):
        explain (Switch | Unset):
        kv_context (str | Unset): A context. Opaque; URL-safe base64 without padding.
        kv_request_id (str | Unset):
        if_none_match (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Any | Problem | Siblings
    """

    return sync_detailed(
        key=key,
        client=client,
        r=r,
        timeout=timeout,
        etag=etag,
        conflict=conflict,
        explain=explain,
        kv_context=kv_context,
        kv_request_id=kv_request_id,
        if_none_match=if_none_match,
    ).parsed


async def asyncio_detailed(
    key: str,
    *,
    client: AuthenticatedClient | Client,
    r: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    etag: str | Unset = UNSET,
    conflict: GetValueConflict | Unset = UNSET,
    explain: Switch | Unset = UNSET,
    kv_context: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
    if_none_match: str | Unset = UNSET,
) -> Response[Any | Problem | Siblings]:
    """Read a value, or its siblings.

     One value is 200, several siblings are 300 (409 under `conflict=error`), no value, or deletions
    alone, 404. Each of them has
    a `Kv-Context`. Resolve siblings by a write with the context of the answer that showed them.
    Siblings come as `multipart/mixed`
    where `Accept` prefers that to JSON; a value always comes as it was stored. `Range` is ignored.

    Args:
        key (str):
        r (str | Unset): A number from 1 to N, `one`, `quorum` (the majority of N) or `all`.
        timeout (str | Unset): A Go duration.
        etag (str | Unset):
        conflict (GetValueConflict | Unset):
        explain (Switch | Unset):
        kv_context (str | Unset): A context. Opaque; URL-safe base64 without padding.
        kv_request_id (str | Unset):
        if_none_match (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Any | Problem | Siblings]
    """

    kwargs = _get_kwargs(
        key=key,
        r=r,
        timeout=timeout,
        etag=etag,
        conflict=conflict,
        explain=explain,
        kv_context=kv_context,
        kv_request_id=kv_request_id,
        if_none_match=if_none_match,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    key: str,
    *,
    client: AuthenticatedClient | Client,
    r: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    etag: str | Unset = UNSET,
    conflict: GetValueConflict | Unset = UNSET,
    explain: Switch | Unset = UNSET,
    kv_context: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
    if_none_match: str | Unset = UNSET,
) -> Any | Problem | Siblings | None:
    """Read a value, or its siblings.

     One value is 200, several siblings are 300 (409 under `conflict=error`), no value, or deletions
    alone, 404. Each of them has
    a `Kv-Context`. Resolve siblings by a write with the context of the answer that showed them.
    Siblings come as `multipart/mixed`
    where `Accept` prefers that to JSON; a value always comes as it was stored. `Range` is ignored.

    Args:
        key (str):
        r (str | Unset): A number from 1 to N, `one`, `quorum` (the majority of N) or `all`.
        timeout (str | Unset): A Go duration.
        etag (str | Unset):
        conflict (GetValueConflict | Unset):
        explain (Switch | Unset):
        kv_context (str | Unset): A context. Opaque; URL-safe base64 without padding.
        kv_request_id (str | Unset):
        if_none_match (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Any | Problem | Siblings
    """

    return (
        await asyncio_detailed(
            key=key,
            client=client,
            r=r,
            timeout=timeout,
            etag=etag,
            conflict=conflict,
            explain=explain,
            kv_context=kv_context,
            kv_request_id=kv_request_id,
            if_none_match=if_none_match,
        )
    ).parsed
