"""What both codecs share: the values of the wire, and the rare cases in plain Python.

The protocol is MessagePack-RPC as Kong speaks it (Kong: kong/runloop/plugin_servers/rpc/
mp_rpc.lua): a request is ``[0, msgid, method, [argument...]]``, a reply ``[1, msgid, error,
result]``, a notification ``[2, label, arguments]``. ``_speedups`` recognises the usual requests
byte by byte and leaves all others to :func:`decode_request`, which is all that ``_fallback`` uses.
"""

from __future__ import annotations

import enum
import numbers
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator, Mapping
from typing import Any, Callable, Optional, Union, cast

import msgpack

from ._bounds import MAX_DEPTH as MAX_DEPTH
from ._bounds import MAX_DEPTH_LIMIT as MAX_DEPTH_LIMIT
from ._bounds import MAX_MESSAGE as MAX_MESSAGE
from .exception import ArgumentError, ProtocolError

REQUEST = 0
RESPONSE = 1
NOTIFICATION = 2

# Kinds of request, as ``Request.kind``.
HANDLE_EVENT = 1  # target: instance id, value: phase
STEP = 2  # target: event id, value: the result of the PDK call
STEP_ERROR = 3  # target: event id, value: the error text of the PDK call
CALL = 4  # target: method, value: list of arguments
IGNORE = 5  # a notification: nothing to answer
STEPS = (STEP, STEP_ERROR)

METHOD_HANDLE_EVENT = "plugin.HandleEvent"
#: Methods that are neither an event nor a step, as they are sent.
CALLS = frozenset((
    b"plugin.StartInstance", b"plugin.CloseInstance", b"plugin.InstanceStatus",
    b"plugin.GetPluginInfo", b"plugin.GetPluginNames", b"plugin.GetStatus",
))  # fmt: skip
METHOD_STEP_PREFIX = "plugin.Step"
METHOD_STEP_ERROR = "plugin.StepError"

# Pieces of replies, between which the values stand.
REPLY_HEAD = b"\x94\x01"  # [1, msgid
NOTIFICATION_HEAD = b"\x93\x02"  # [2, label, value
NIL = b"\xc0"
CALL_METHOD = NIL + b"\x82\xa4Data\x82\xa6Method"  # nil, {Data: {Method: function
CALL_ARGS = b"\xa4Args"  # Args: [...]}
EVENT_ID = b"\xa7EventId"  # EventId: id}
RETURN_DATA = NIL + b"\x82\xa4Data\xa3ret"  # nil, {Data: "ret"

#: Functions that answer the client: the event ends in Kong, and no step follows.
TERMINAL = frozenset(("kong.response.exit", "kong.response.error"))

#: Phases in which Kong lets a plugin answer the client (Kong: kong/pdk/response.lua); certificate
#: has no client to answer yet, log none any more.
CLOSABLE = frozenset(("rewrite", "access", "response", "preread"))

#: In the id of an instance: its requests are refused if its plugin fails. In the id of an event: so
#: is this one, and Kong takes an answer for the client in its phase. So whoever gets such an id can
#: do the right thing, also when the process that gave it away is no more.
CLOSED_BIT = 1

# What a connection owes, in one number that is 0 for nothing; see ``Connection.owes``.
OWES_MSGID = (1 << 48) - 1  # of the request that is to be answered
OWES_ERROR = 1 << 48  # if nobody else can, answer with an error
OWES_EXIT = 2 << 48  # refuse the client's request
OWES_POLICY = 3 << 48  # one or the other, as the server's policy says: the plugin is not known
OWES_HOW = 3 << 48
OWES_REST = 1 << 50  # a part of the request is yet to come
OWES_CUT = 1 << 51  # a part of the answer may have gone out
OWES_LENT = 1 << 52  # the answer is another process's business: the owner's index is above
OWES_OWNER = 53
OWES_UNKNOWN = 1 << 63  # to what, cannot be said

#: So much of a request tells what it is, bytes; all of a HandleEvent.
HEAD_SIZE = 96

#: What memory that processes share holds of a connection, in numbers of 8 bytes: what it owes;
#: since when, in milliseconds of the monotonic clock; how many bytes of its request are to come, 0
#: if that is not known; whether something is being read that is not noted yet; and then room for
#: the first bytes of that, ``HEAD_SIZE``. The kernel writes there, so that no moment is left at
#: which the process could die with a request that nobody else knows of.
DEBT_SIZE = 4 + HEAD_SIZE // 8

#: Replies of more bytes may go out in part, and are noted so before. Sockets hold about 200 KiB.
CUT_ABOVE = 64 * 1024

#: The first read of a connection; enough for nearly every request, bytes.
READ_SIZE = 16 * 1024

#: How long a peer may take to read a reply before it is taken for dead, milliseconds. Kong gives
#: its own side of a call 60 s.
SEND_TIMEOUT_MS = 60_000

#: Lengths at which LuaJIT finds the end of an array with holes, for up to eight arguments: measured
#: with every pattern of nil and value (tests/e2e holds it against a real LuaJIT).
HOLE_PADDED_LENGTH = 12

ERRORS = "surrogateescape"  # Lua strings are bytes: what is not UTF-8 must survive both ways

NESTING_ADVICE = "nested deeper than {limit} containers"
SIZE_ADVICE = "a message of at least {size} bytes, {limit} are allowed (max_message)"


def check_bounds(max_message: object, max_depth: object) -> None:
    """Raise TypeError or ValueError for bounds of messages that are none."""
    for name, value in (("max_message", max_message), ("max_depth", max_depth)):
        if type(value) is not int:
            raise TypeError(f"{name} must be an int, got {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_arguments(function: str, args: tuple[Any, ...]) -> None:
    """Raise ArgumentError for more arguments than a call can have."""
    if len(args) > 0xFFFF:
        raise ArgumentError(f"{function}: {len(args)} arguments are too many for one call")


#: The text of the error for a PDK call of a greenlet's event in another thread.
FOREIGN_THREAD = "with gevent, PDK calls cannot be made from other threads"


#: The text of what ends a handler that has had its time.
EXPIRED = "the handler has taken longer than --handler-timeout or --answer-timeout allow"


def check_result(result: object) -> None:
    """See that a handler which has returned something has run.

    Raises:
        TypeError: it has not; what it guards must not be open because of that.
    """
    if isinstance(result, (Awaitable, Generator, AsyncGenerator)):
        if isinstance(result, (Coroutine, Generator)):
            result.close()  # else Python warns of it
        name = type(result).__name__
        raise TypeError(
            f"the handler has not run, it returned a {name}: async and yield are not supported"
        )


def ended_text(function: str) -> str:
    """The text of the error for a PDK call that comes too late."""
    return (
        f"{function}: this event is over; the kong object is of no use after the end of its "
        f"handler, kong.response.exit or kong.response.error"
    )


def start_error(byte: int) -> ProtocolError:
    """The error for a message that does not begin as a request does."""
    return ProtocolError(
        f"expected a MessagePack-RPC request [0, msgid, method, arguments], "
        f"got a message that begins with byte 0x{byte:02x}"
    )


def reserved_error() -> ProtocolError:
    """The error for byte 0xc1, which MessagePack never uses."""
    return ProtocolError("byte 0xc1 is no MessagePack type")


def decode_value(data: Union[bytes, bytearray, memoryview]) -> Any:
    """Decode one MessagePack value.

    Strings that are not UTF-8 come with surrogate escapes, map keys may be of any hashable type.

    Raises:
        ProtocolError: for anything that msgpack refuses.
    """
    try:
        return msgpack.unpackb(
            data, raw=False, unicode_errors=ERRORS, strict_map_key=False, use_list=True
        )
    except Exception as exc:  # msgpack raises ValueError, TypeError, OverflowError and its own
        raise ProtocolError(f"cannot decode a value: {exc or type(exc).__name__}") from exc


def decode_request(data: Union[bytes, bytearray, memoryview]) -> tuple[int, int, Any, Any]:
    """Decode one whole request to ``(kind, msgid, target, value)``; see the kinds above.

    A call whose only argument is a map with ``EventId`` is a step whatever its method says: Kong
    takes the method's name from a ``_method`` key of the PDK function's result, which a client can
    plant. For the same reason a step error is believed only if it carries a text.

    Raises:
        ProtocolError: if the message is no request.
    """
    message = decode_value(data)
    if not isinstance(message, list) or not message:
        raise ProtocolError("expected a request [0, msgid, method, arguments], got an empty array")
    if type(message[0]) is int and message[0] == NOTIFICATION:
        return IGNORE, 0, None, None
    if len(message) != 4 or type(message[0]) is not int or message[0] != REQUEST:
        raise ProtocolError("expected a request [0, msgid, method, arguments], got another array")
    _, msgid, method, params = message
    if type(msgid) is not int:
        raise ProtocolError(f"a request's msgid must be an integer, got {type(msgid).__name__}")
    if not isinstance(params, list):
        raise ProtocolError(f"a request's arguments must be an array, got {type(params).__name__}")
    if len(params) == 1 and isinstance(params[0], dict):
        argument = params[0]
        event_id = argument.get("EventId")
        if type(event_id) is int:
            result = argument.get("Data")
            if method == METHOD_STEP_ERROR and isinstance(result, str):
                return STEP_ERROR, msgid, event_id, result
            return STEP, msgid, event_id, result
        instance_id, phase = argument.get("InstanceId"), argument.get("EventName")
        if method == METHOD_HANDLE_EVENT and type(instance_id) is int and isinstance(phase, str):
            return HANDLE_EVENT, msgid, instance_id, phase
    return CALL, msgid, method, params


def debt_of(kind: int, msgid: Any, target: Any, value: Any) -> int:
    """What a connection owes once a request has been read; see ``Connection.owes``."""
    if kind == IGNORE:
        return 0
    if type(msgid) is not int or not 0 <= msgid <= OWES_MSGID:
        return OWES_UNKNOWN
    closed = kind != CALL and target & CLOSED_BIT and (kind != HANDLE_EVENT or value in CLOSABLE)
    return msgid | (OWES_EXIT if closed else OWES_ERROR)


def debt_of_head(head: bytes) -> int:
    """What a connection owes of whose last request only this is known, followed by zeros."""
    unpacker = msgpack.Unpacker(raw=False, unicode_errors=ERRORS, strict_map_key=False)
    unpacker.feed(head)
    try:
        unpacker.skip()
        return debt_of(*decode_request(head[: unpacker.tell()]))
    except Exception:  # it is longer than that, or no request
        return debt_of_part(head) | OWES_REST


def debt_of_part(head: Union[bytes, bytearray, memoryview]) -> int:
    """What a connection owes whose request has come in part only, or is refused for its size.

    Args:
        head: what has come. All that matters is in the first bytes: where the event's id is not,
            because Kong has put it behind the value, the server's policy decides.
    """
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
    unpacker.feed(bytes(head[:HEAD_SIZE]))
    try:
        if unpacker.read_array_header() != 4 or unpacker.unpack() != REQUEST:
            return OWES_UNKNOWN
        msgid = unpacker.unpack()
        if type(msgid) is not int or not 0 <= msgid <= OWES_MSGID:
            return OWES_UNKNOWN
    except Exception:  # cut before that, or something else altogether
        return OWES_UNKNOWN
    try:
        if unpacker.unpack() in CALLS:  # a step may have any other method, which a client can plant
            return msgid | OWES_ERROR
        unpacker.read_array_header()
        unpacker.read_map_header()
        if unpacker.unpack() == b"EventId":
            event_id = unpacker.unpack()
            if type(event_id) is int:
                return msgid | (OWES_EXIT if event_id & CLOSED_BIT else OWES_ERROR)
    except Exception:
        pass
    return msgid | OWES_POLICY


def new_packer(default: Optional[Callable[[Any], Any]] = None) -> msgpack.Packer:
    """A packer with the settings of the wire: ``str`` as str, ``bytes`` as bin.

    Args:
        default: is asked what to pack in place of a value that MessagePack cannot carry.
    """
    return msgpack.Packer(
        use_bin_type=True, unicode_errors=ERRORS, autoreset=True, default=default or _plain_form
    )


def _plain_form(value: Any) -> Any:
    """What MessagePack can carry in place of a value that it cannot."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, int):  # msgpack asks about those above 64 bits too
        raise OverflowError(f"an integer of {value.bit_length()} bits is too large")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"there is no such type as {type(value).__name__} in MessagePack")


# These values are packed without a line of Python running, so that threads can share a packer for
# them: to make one takes longer than to pack. It keeps the room for the largest that it has seen.
_PLAIN = frozenset((type(None), bool, int, float))
_SMALL = 4096  # characters or bytes
_pack_plain = new_packer().pack


def pack_value(value: Any) -> bytes:
    """Encode one value. Raises what msgpack raises; see :func:`argument_error`."""
    kind = type(value)
    if kind in _PLAIN or ((kind is str or kind is bytes) and len(value) <= _SMALL):
        return cast(bytes, _pack_plain(value))
    others = False

    def plain_form(value: Any) -> Any:
        nonlocal others
        others = True
        return _plain_form(value)

    data = cast(bytes, new_packer(plain_form).pack(value))
    # Other code has run meanwhile, and a list's length was written before its items.
    if others and not _is_one_value(data):
        raise ValueError("it was changed while it was read")
    return data


def _is_one_value(data: bytes) -> bool:
    """Whether these bytes are one MessagePack value and nothing else."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    try:
        unpacker.skip()
    except Exception:  # there is less, or something else
        return False
    return bool(unpacker.tell() == len(data))


def pack_arguments(function: str, args: tuple[Any, ...]) -> bytes:
    """Encode the values of ``args`` one after the other, without the array around them.

    Raises:
        ArgumentError: names the function and the argument that cannot be sent, and why.
    """
    parts = []
    for index, value in enumerate(args):
        try:
            parts.append(pack_value(value))
        except Exception as exc:
            raise argument_error(function, index, value, exc) from exc
    return b"".join(parts)


#: Names of the parameters of each function, for errors.
parameter_names: dict[str, tuple[str, ...]] = {}


def argument_error(function: str, index: int, value: Any, exc: Exception) -> ArgumentError:
    """The error for an argument that MessagePack cannot carry."""
    names = parameter_names.get(function, ())
    which = names[index] if index < len(names) else f"argument {index + 1}"
    return ArgumentError(
        f"{function}: {which}, of type {type(value).__name__}, cannot be sent to "
        f"Kong: {exc or type(exc).__name__} (strings, bytes, numbers up to 64 bits, booleans, "
        f"None, lists, tuples and dicts of these can)"
    )


def with_msgid(frame: bytes, old: int, new: int) -> bytes:
    """An encoded reply to request ``old`` as one to request ``new``."""
    return REPLY_HEAD + pack_value(new) + frame[len(REPLY_HEAD) + len(pack_value(old)) :]


def escape_texts(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Texts that can be sent whatever they hold; a client's JSON may have half of a surrogate pair.

    Args:
        args: what is logged.
    """
    return tuple(
        arg.encode("utf-8", "backslashreplace").decode() if isinstance(arg, str) else arg
        for arg in args
    )


def has_hole(args: tuple[Any, ...]) -> bool:
    """Whether a None stands before another value."""
    none = False
    for value in args:
        if value is None:
            none = True
        elif none:
            return True
    return False


def pad_holes(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make arguments with a None before another value safe for LuaJIT.

    Kong fills a Lua table with them and unpacks it; where a nil stands in between, LuaJIT may find
    the end of the table too early and drop what follows. Behind values that no function looks at,
    up to a length at which it does not, all of them arrive.

    Args:
        args: the arguments of a PDK call, up to eight of them with holes.

    Returns:
        ``args``, or ``args`` and so many ``False`` that nothing is lost.
    """
    while args and args[-1] is None:
        args = args[:-1]  # a trailing nil is the same as none
    if not has_hole(args):
        return args
    return args + (False,) * (HOLE_PADDED_LENGTH - len(args))
