"""What plugins keep writing by hand, made of PDK calls; for both styles.

::

    from kong_pdk.pdk import helpers

    class Plugin:
        def access(self, kong):
            token = helpers.bearer_token(kong)
            if token is None:
                kong.response.exit(401, {"message": "a token is missing"})
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, Optional, Union

from .kong import kong as LuaStyle
from .proxy import data_of
from .python_style import kong as PythonStyle
from .types import Headers, Table, Text

__all__ = ["bearer_token", "json_body", "replace_response_body"]

#: The root of the PDK, in either style.
Kong = Union[LuaStyle, PythonStyle]

#: ``Authorization`` with a bearer token (RFC 6750, section 2.1).
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)


def bearer_token(kong: Kong) -> Optional[str]:
    """The bearer token of the request.

    Makes one PDK call, so it can be used where kong.request.get_header can.

    Args:
        kong: what the handler got.

    Returns:
        The token of the header ``Authorization``; None if there is no such header, or if it has
        another scheme or is malformed. Nothing says that the token is good.

    Raises:
        PDKException: the PDK call failed.
    """
    found = _BEARER.fullmatch(data_of(kong.request.get_header("authorization")) or "")
    return found.group(1) if found else None


def json_body(kong: Kong, max_allowed_file_size: Optional[int] = None) -> Any:
    """The body of the request as Python's json reads it.

    Other than kong.request.get_body it keeps null, the difference of ``[]`` and ``{}``, and all
    digits of integers, and it does not look at the content type. It makes one PDK call,
    kong.request.get_raw_body, in ``rewrite``, ``access`` or ``response``.

    Args:
        kong: what the handler got.
        max_allowed_file_size: read a body that nginx has put on disk too, up to so many bytes; 0
            stands for any. Kong 3.8 and later; a body on disk ends the event without it.

    Returns:
        What the JSON stands for; None for an empty body, too.

    Raises:
        ValueError: the body is no JSON; a client can send anything.
        PDKException: the PDK call failed.
    """
    if max_allowed_file_size is None:
        body = data_of(kong.request.get_raw_body())
    else:
        body = data_of(kong.request.get_raw_body(max_allowed_file_size))
    try:
        return json.loads(body) if body else None
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None


def replace_response_body(
    kong: Kong, body: Union[Text, Table], headers: Optional[Headers] = None
) -> NoReturn:
    """Send the service's response with another body; its status and headers stay.

    For the phase ``response``. Three PDK calls: get_status, clear_header for ``Content-Encoding``,
    since the new body is not compressed, and exit, which sets ``Content-Length``. A header that
    describes the old body, such as ``ETag``, is the caller's to set or clear.

    Args:
        kong: what the handler got.
        body: text or bytes; a dict or list is sent as JSON.
        headers: headers that are set in addition, in place of those of the same name.

    Raises:
        ResponseSent: always; it ends the handler.
        PDKException: a PDK call failed.
    """
    status = data_of(kong.response.get_status())
    kong.response.clear_header("content-encoding")
    kong.response.exit(status, body, headers)
