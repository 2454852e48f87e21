from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.problem import Problem
from ...models.switch import Switch
from ...models.written import Written
from ...types import UNSET, Response, Unset


def _get_kwargs(
    key: str,
    *,
    w: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    sloppy: Switch | Unset = UNSET,
    kv_context: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(kv_context, Unset):
        headers["Kv-Context"] = kv_context

    if not isinstance(kv_request_id, Unset):
        headers["Kv-Request-Id"] = kv_request_id

    params: dict[str, Any] = {}

    params["w"] = w

    params["timeout"] = timeout

    json_sloppy: str | Unset = UNSET
    if not isinstance(sloppy, Unset):
        json_sloppy = sloppy.value

    params["sloppy"] = json_sloppy

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "delete",
        "url": "/v1/kv/{key}".format(
            key=quote(str(key), safe=""),
        ),
        "params": params,
    }

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Problem | Written | None:
    if response.status_code == 200:
        response_200 = Written.from_dict(response.json())

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

    if response.status_code == 410:
        response_410 = Problem.from_dict(response.json())

        return response_410

    if response.status_code == 414:
        response_414 = Problem.from_dict(response.json())

        return response_414

    if response.status_code == 429:
        response_429 = Problem.from_dict(response.json())

        return response_429

    if response.status_code == 500:
        response_500 = Problem.from_dict(response.json())

        return response_500

    if response.status_code == 501:
        response_501 = Problem.from_dict(response.json())

        return response_501

    if response.status_code == 503:
        response_503 = Problem.from_dict(response.json())

        return response_503

    if response.status_code == 504:
        response_504 = Problem.from_dict(response.json())

        return response_504

    if response.status_code == 507:
        response_507 = Problem.from_dict(response.json())

        return response_507

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[Problem | Written]:
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
    w: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    sloppy: Switch | Unset = UNSET,
    kv_context: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> Response[Problem | Written]:
    """Write a deletion. Deleting what is not there is no error.

     A deletion is a write like any other: with a context it deletes exactly what the context covers.

    Args:
        key (str):
        w (str | Unset): A number from 1 to N, `one`, `quorum` (the majority of N) or `all`.
        timeout (str | Unset): A Go duration.
        sloppy (Switch | Unset):
        kv_context (str | Unset): A context. Opaque; URL-safe base64 without padding.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | Written]
    """

    kwargs = _get_kwargs(
        key=key,
        w=w,
        timeout=timeout,
        sloppy=sloppy,
        kv_context=kv_context,
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
    w: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    sloppy: Switch | Unset = UNSET,
    kv_context: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> Problem | Written | None:
    """Write a deletion. Deleting what is not there is no error.

     A deletion is a write like any other: with a context it deletes exactly what the context covers.

    Args:
        key (str):
        w (str | Unset): A number from 1 to N, `one`, `quorum` (the majority of N) or `all`.
        timeout (str | Unset): A Go duration.
        sloppy (Switch | Unset):
        kv_context (str | Unset): A context. Opaque; URL-safe base64 without padding.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | Written
    """

    return sync_detailed(
        key=key,
        client=client,
        w=w,
        timeout=timeout,
        sloppy=sloppy,
        kv_context=kv_context,
        kv_request_id=kv_request_id,
    ).parsed


async def asyncio_detailed(
    key: str,
    *,
    client: AuthenticatedClient | Client,
    w: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    sloppy: Switch | Unset = UNSET,
    kv_context: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> Response[Problem | Written]:
    """Write a deletion. Deleting what is not there is no error.

     A deletion is a write like any other: with a context it deletes exactly what the context covers.

    Args:
        key (str):
        w (str | Unset): A number from 1 to N, `one`, `quorum` (the majority of N) or `all`.
        timeout (str | Unset): A Go duration.
        sloppy (Switch | Unset):
        kv_context (str | Unset): A context. Opaque; URL-safe base64 without padding.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Problem | Written]
    """

    kwargs = _get_kwargs(
        key=key,
        w=w,
        timeout=timeout,
        sloppy=sloppy,
        kv_context=kv_context,
        kv_request_id=kv_request_id,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    key: str,
    *,
    client: AuthenticatedClient | Client,
    w: str | Unset = UNSET,
    timeout: str | Unset = UNSET,
    sloppy: Switch | Unset = UNSET,
    kv_context: str | Unset = UNSET,
    kv_request_id: str | Unset = UNSET,
) -> Problem | Written | None:
    """Write a deletion. Deleting what is not there is no error.

     A deletion is a write like any other: with a context it deletes exactly what the context covers.

    Args:
        key (str):
        w (str | Unset): A number from 1 to N, `one`, `quorum` (the majority of N) or `all`.
        timeout (str | Unset): A Go duration.
        sloppy (Switch | Unset):
        kv_context (str | Unset): A context. Opaque; URL-safe base64 without padding.
        kv_request_id (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Problem | Written
    """

    return (
        await asyncio_detailed(
            key=key,
            client=client,
            w=w,
            timeout=timeout,
            sloppy=sloppy,
            kv_context=kv_context,
            kv_request_id=kv_request_id,
        )
    ).parsed
