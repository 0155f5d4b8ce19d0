# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=False
"""The compiled hot path: what ``_fallback`` does, in C, and the waiting of threads without the GIL.

Longer than most files here because each layer below calls the one above it without leaving C:
bytes -> requests (Decoder), sleeping (Waiter, gate), sockets (Connection, Poller), values -> bytes
(Writer), events, their calls, their dispatch and their count (Event, Function, Switch, Dispatcher, Tally). The pure twin is the reference for
behaviour, and documents what both offer; ``tests/unit/codec`` holds the two to each other.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_NoMemory
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_AsUnsignedLongLongMask
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EINTR, ENOMEM, errno
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset
from posix.unistd cimport close, read, write

import os
import socket
import sys
import threading

from . import _columns, _kinds, _wire
from ._wakeup import open_wakeup, send_wakeup
from .exception import (
    ArgumentError,
    ConnectionClosed,
    EventEnded,
    HandlerExit,
    HandlerTimeout,
    MessageTooLarge,
    NestingTooDeep,
    PDKException,
    ProtocolError,
    ReplyLost,
    ResponseSent,
)


cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)
    enum:
        POLLIN
        POLLOUT

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t readv(int fd, const iovec *parts, int count)

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)

cdef extern from *:
    """
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0  /* Python ignores SIGPIPE anyway */
    #endif
    """
    int MSG_NOSIGNAL

cdef extern from *:
    """
    #include <time.h>
    #ifdef CLOCK_MONOTONIC_COARSE
    #define KP_CLOCK CLOCK_MONOTONIC_COARSE  /* read without a system call, every 1 to 10 ms anew */
    #else
    #define KP_CLOCK CLOCK_MONOTONIC
    #endif
    static double kp_now(void) {
        struct timespec now;
        clock_gettime(KP_CLOCK, &now);
        return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    }
    static double kp_exact(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    }
    """
    double kp_now() noexcept nogil  # seconds, as time.monotonic
    double kp_exact() noexcept nogil  # the same to the nanosecond, which takes longer

cdef extern from *:
    """
    #define kp_new(kind, args) (((PyTypeObject *)(kind))->tp_new((PyTypeObject *)(kind), args, NULL))
    """
    object kp_new(object kind, object args)  # without __init__

cdef extern from *:
    """
    #include <stdint.h>
    static inline void kp_note(uint64_t *at, uint64_t value) {
        __atomic_store_n(at, value, __ATOMIC_RELEASE);
    }
    static inline int kp_swap(uint64_t *at, uint64_t expected, uint64_t value) {
        return __atomic_compare_exchange_n(
            at, &expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    """
    void kp_note(uint64_t *at, uint64_t value) noexcept nogil
    int kp_swap(uint64_t *at, uint64_t expected, uint64_t value) noexcept nogil

cdef extern from "_gate.h" nogil:
    void kp_gate_enter(void *who)
    int kp_gate_leave(void *who)
    void kp_gate_reset()

cdef extern from "_poll.h" nogil:
    ctypedef struct kp_state:
        pass
    int kp_change(kp_state *state, int expected, int wanted)
    void kp_set(kp_state *state, int wanted)
    int kp_poll_new()
    int kp_poll_watch(int poller, int fd, int again, int once)
    int kp_poll_drop(int poller, int fd)
    int kp_poll_ready(int poller, int *fds, int size, long wait)

cdef enum:
    READ_SIZE = 16384
    SHRINK_ABOVE = 262144  # an idle connection does not keep more than this

# How a scan ended, or why.
cdef enum:
    SCAN_MORE = 0
    SCAN_DONE = 1
    SCAN_BAD_START = -1
    SCAN_RESERVED = -2
    SCAN_TOO_LARGE = -3
    SCAN_TOO_DEEP = -4
    SCAN_NO_MEMORY = -5

# How an exchange ended.
cdef enum:
    GOT_SCAN = 0
    GOT_WAKE = 1
    GOT_EOF = 2
    GOT_READ_ERROR = 3
    GOT_WRITE_ERROR = 4
    GOT_WRITE_TIMEOUT = 5

# Types of arguments and what else Function wants to know; the values of _kinds, held to them below.
cdef enum:
    STR = 1
    BYTES = 2
    INT = 4
    FLOAT = 8
    BOOL = 16
    NONE = 32
    DICT = 64
    LIST = 128
    OTHER = 256
    NUMBER = 12
    SCALAR = 31
    MAX_PARAMETERS = 8
    HEADER_VALUES = 1
    HEADERS = 2
    AS_IT_IS = 0
    MAP = 1
    ARRAY = 2
    RAW = 4

if (
    STR, BYTES, INT, FLOAT, BOOL, NONE, DICT, LIST, OTHER, NUMBER, SCALAR, MAX_PARAMETERS,
    HEADER_VALUES, HEADERS, AS_IT_IS, MAP, ARRAY, RAW,
) != (
    _kinds.STR, _kinds.BYTES, _kinds.INT, _kinds.FLOAT, _kinds.BOOL, _kinds.NONE, _kinds.DICT,
    _kinds.LIST, _kinds.OTHER, _kinds.NUMBER, _kinds.SCALAR, _kinds.MAX_PARAMETERS,
    _kinds.HEADER_VALUES, _kinds.HEADERS, _kinds.AS_IT_IS, _kinds.MAP, _kinds.ARRAY, _kinds.RAW,
):
    raise ImportError("the constants of _speedups.pyx and _kinds.py differ")

# What a connection owes.
cdef enum:
    DEBT_SIZE = 16
    CUT_ABOVE = 65536
    HEAD_SIZE = 96
    OWES_OWNER = 53
    CLOSED_BIT = 1

cdef uint64_t OWES_MSGID = _wire.OWES_MSGID
cdef uint64_t OWES_ERROR = _wire.OWES_ERROR
cdef uint64_t OWES_EXIT = _wire.OWES_EXIT
cdef uint64_t OWES_POLICY = _wire.OWES_POLICY
cdef uint64_t OWES_REST = _wire.OWES_REST
cdef uint64_t OWES_CUT = _wire.OWES_CUT
cdef uint64_t OWES_LENT = _wire.OWES_LENT
cdef uint64_t OWES_UNKNOWN = _wire.OWES_UNKNOWN
cdef frozenset CLOSABLE = _wire.CLOSABLE

if (DEBT_SIZE, CUT_ABOVE, HEAD_SIZE, OWES_OWNER, CLOSED_BIT) != (
    _wire.DEBT_SIZE, _wire.CUT_ABOVE, _wire.HEAD_SIZE, _wire.OWES_OWNER, _wire.CLOSED_BIT
):
    raise ImportError("the constants of _speedups.pyx and _wire.py differ")

# What stands where in a row of a Tally; the values of _columns, held to them below.
cdef enum:
    STARTED = 0
    ERRORS = 1
    ABANDONED = 3
    CALLS = 5
    NANOSECONDS = 6
    BUCKETS = 7
    BOUNDS = 18
    COLUMNS = 32

if (STARTED, ERRORS, ABANDONED, CALLS, NANOSECONDS, BUCKETS, BOUNDS, COLUMNS) != (
    _columns.STARTED, _columns.ERRORS, _columns.ABANDONED, _columns.CALLS, _columns.NANOSECONDS,
    _columns.BUCKETS, len(_columns.BOUNDS), _columns.COLUMNS,
):
    raise ImportError("the constants of _speedups.pyx and _columns.py differ")

cdef double[BOUNDS] ENDS
cdef int each_bound
for each_bound in range(BOUNDS):
    ENDS[each_bound] = _columns.BOUNDS[each_bound]
cdef double LONGEST = _columns.LONGEST

# What a waiter's thread is doing with the connection that it reads.
cdef enum:
    READS_NONE = 0
    ASLEEP = 1  # whoever wakes it may take the connection
    READING = 2

cdef int HANDLE_EVENT = _wire.HANDLE_EVENT
cdef int CALL = _wire.CALL
cdef int IGNORE = _wire.IGNORE
cdef int STEP = _wire.STEP
cdef int STEP_ERROR = _wire.STEP_ERROR
cdef frozenset TERMINAL = _wire.TERMINAL
cdef int SEND_TIMEOUT_MS = _wire.SEND_TIMEOUT_MS
cdef bytes ENCODED_HANDLE_EVENT = _wire.METHOD_HANDLE_EVENT.encode()
cdef bytes ENCODED_STEP = _wire.METHOD_STEP_PREFIX.encode()
cdef bytes ENCODED_STEP_ERROR = _wire.METHOD_STEP_ERROR.encode()
cdef bytes REPLY_HEAD = _wire.REPLY_HEAD
cdef bytes NOTIFICATION_HEAD = _wire.NOTIFICATION_HEAD
cdef bytes NIL = _wire.NIL
cdef bytes CALL_METHOD = _wire.CALL_METHOD
cdef bytes CALL_ARGS = _wire.CALL_ARGS
cdef bytes EVENT_ID = _wire.EVENT_ID
cdef bytes RETURN_DATA = _wire.RETURN_DATA
cdef tuple EMPTY = ()


@cython.freelist(64)
cdef class Request:
    """One request of Kong; the kinds, and what target and value mean, are in ``_wire``."""

    cdef readonly int kind
    cdef readonly object msgid
    cdef readonly object target
    cdef readonly object value
    cdef readonly double at

    def __init__(self, kind, msgid, target, value):
        self.kind = kind
        self.at = kp_exact() if self.kind == HANDLE_EVENT else kp_now()
        self.msgid = msgid
        self.target = target
        self.value = value

    def __repr__(self):
        return f"<Request kind={self.kind} msgid={self.msgid} target={self.target!r}>"


cdef inline Request new_request(int kind, object msgid, object target, object value):
    cdef Request request = Request.__new__(Request)
    request.at = kp_exact() if kind == HANDLE_EVENT else kp_now()
    request.kind = kind
    request.msgid = msgid
    request.target = target
    request.value = value
    return request


# --- bytes to values ---------------------------------------------------------------------------

cdef inline uint64_t big_endian(const uint8_t *p, int size) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(size):
        value = value << 8 | p[i]
    return value


cdef inline bint take_uint(const uint8_t **at, uint64_t *value) noexcept nogil:
    """Read an unsigned integer; the message is known to be complete."""
    cdef uint8_t byte = at[0][0]
    cdef int size
    if byte < 0x80:
        value[0] = byte
        at[0] += 1
        return True
    if 0xCC <= byte <= 0xCF:
        size = 1 << (byte - 0xCC)
        value[0] = big_endian(at[0] + 1, size)
        at[0] += 1 + size
        return True
    return False


cdef inline bint take_str(const uint8_t **at, const uint8_t **data, size_t *length) noexcept nogil:
    """Read a str; the message is known to be complete."""
    cdef const uint8_t *p = at[0]
    cdef uint8_t byte = p[0]
    cdef int size
    if 0xA0 <= byte < 0xC0:
        length[0] = byte & 0x1F
        data[0] = p + 1
    elif 0xD9 <= byte <= 0xDB:
        size = 1 << (byte - 0xD9)
        length[0] = <size_t>big_endian(p + 1, size)
        data[0] = p + 1 + size
    else:
        return False
    at[0] = data[0] + length[0]
    return True


cdef inline bint is_text(const uint8_t *data, size_t length, bytes text) noexcept:
    return <Py_ssize_t>length == PyBytes_GET_SIZE(text) and not memcmp(
        data, PyBytes_AS_STRING(text), length
    )


cdef object take_value(const uint8_t *p, const uint8_t *end):
    """Decode the one value that fills p to end."""
    cdef uint64_t number
    cdef size_t length
    cdef const uint8_t *data
    cdef const uint8_t *at = p
    if p[0] == 0xC0:
        return None
    if p[0] == 0xC2:
        return False
    if p[0] == 0xC3:
        return True
    if take_uint(&at, &number):
        return number
    if take_str(&at, &data, &length):
        return PyUnicode_DecodeUTF8(<const char *>data, <Py_ssize_t>length, b"surrogateescape")
    return _wire.decode_value(PyBytes_FromStringAndSize(<const char *>p, end - p))


cdef object take_request(const uint8_t *p, const uint8_t *end):
    """Decode the whole request that fills p to end: the usual ones here, others in ``_wire``."""
    cdef const uint8_t *at = p
    cdef const uint8_t *method
    cdef const uint8_t *key
    cdef const uint8_t *text
    cdef const uint8_t *value = NULL
    cdef size_t method_length, key_length, text_length = 0
    cdef uint64_t msgid, number = 0
    cdef int pairs
    if at[0] != 0x94 or at[1] != 0:
        return slow_request(p, end)
    at += 2
    if not take_uint(&at, &msgid) or not take_str(&at, &method, &method_length):
        return slow_request(p, end)
    if at[0] != 0x91 or at[1] & 0xF0 != 0x80:
        return slow_request(p, end)
    pairs = at[1] & 0x0F
    at += 2
    if is_text(method, method_length, ENCODED_HANDLE_EVENT):
        if pairs != 2:
            return slow_request(p, end)
        text = NULL
        for _ in range(2):
            if not take_str(&at, &key, &key_length):
                return slow_request(p, end)
            if key_length == 10 and not memcmp(key, b"InstanceId", 10) and value == NULL:
                value = at
                if not take_uint(&at, &number):
                    return slow_request(p, end)
            elif key_length == 9 and not memcmp(key, b"EventName", 9) and text == NULL:
                if not take_str(&at, &text, &text_length):
                    return slow_request(p, end)
            else:
                return slow_request(p, end)
        return new_request(
            HANDLE_EVENT, msgid, number,
            PyUnicode_DecodeUTF8(<const char *>text, <Py_ssize_t>text_length, b"surrogateescape"),
        )
    if (
        method_length < <size_t>PyBytes_GET_SIZE(ENCODED_STEP)
        or memcmp(method, PyBytes_AS_STRING(ENCODED_STEP), PyBytes_GET_SIZE(ENCODED_STEP))
        or is_text(method, method_length, ENCODED_STEP_ERROR)
    ):
        return slow_request(p, end)
    if pairs == 1:  # a PDK call that returned nothing: no Data
        if not take_str(&at, &key, &key_length) or key_length != 7 or memcmp(key, b"EventId", 7):
            return slow_request(p, end)
        if not take_uint(&at, &number):
            return slow_request(p, end)
        return new_request(STEP, msgid, number, None)
    if pairs != 2 or not take_str(&at, &key, &key_length):
        return slow_request(p, end)
    if key_length == 7 and not memcmp(key, b"EventId", 7):
        if not take_uint(&at, &number) or not take_str(&at, &key, &key_length):
            return slow_request(p, end)
        if key_length != 4 or memcmp(key, b"Data", 4):
            return slow_request(p, end)
        return new_request(STEP, msgid, number, take_value(at, end))
    if key_length == 4 and not memcmp(key, b"Data", 4):
        value = at
        at = skip_value(at, end)
        text = at
        if at == NULL or not take_str(&at, &key, &key_length):
            return slow_request(p, end)
        if key_length != 7 or memcmp(key, b"EventId", 7) or not take_uint(&at, &number):
            return slow_request(p, end)
        return new_request(STEP, msgid, number, take_value(value, text))
    return slow_request(p, end)


cdef bint is_closable(const uint8_t *phase, size_t length) noexcept nogil:
    return (
        length == 6 and not memcmp(phase, b"access", 6)
        or length == 7 and (not memcmp(phase, b"rewrite", 7) or not memcmp(phase, b"preread", 7))
        or length == 8 and not memcmp(phase, b"response", 8)
    )


cdef uint64_t debt_of_bytes(const uint8_t *p, const uint8_t *end, bint whole) noexcept nogil:
    """What is owed for a request, or for its beginning, as ``_wire.debt_of`` and ``debt_of_part``.

    That waits for the GIL, and the process may be killed meanwhile. So this is noted before that;
    where the request is unusual the server's policy decides until then.
    """
    cdef const uint8_t *at = p
    cdef const uint8_t *text
    cdef uint64_t msgid, number = 0
    cdef size_t length
    cdef int i, closed
    if end - p < HEAD_SIZE and not whole or at[0] != 0x94 or at[1] != 0:
        return OWES_UNKNOWN
    at += 2
    if not take_uint(&at, &msgid) or msgid > OWES_MSGID:
        return OWES_UNKNOWN
    if not take_str(&at, &text, &length) or length > 32:
        return msgid | OWES_POLICY
    if length == 18 and not memcmp(text, b"plugin.HandleEvent", 18):
        if not whole or at[0] != 0x91 or at[1] != 0x82:
            return msgid | OWES_POLICY
        at += 2
        closed = 2
        for i in range(2):
            if not take_str(&at, &text, &length):
                return msgid | OWES_POLICY
            if length == 10 and not memcmp(text, b"InstanceId", 10):
                if not take_uint(&at, &number):
                    return msgid | OWES_POLICY
                closed -= number & CLOSED_BIT
            elif take_str(&at, &text, &length):
                closed -= is_closable(text, length)
            else:
                return msgid | OWES_POLICY
        return msgid | (OWES_ERROR if closed else OWES_EXIT)
    if (
        length == 20 and not memcmp(text, b"plugin.StartInstance", 20)
        or length == 20 and not memcmp(text, b"plugin.CloseInstance", 20)
        or length == 21 and not memcmp(text, b"plugin.InstanceStatus", 21)
        or length == 20 and not memcmp(text, b"plugin.GetPluginInfo", 20)
        or length == 21 and not memcmp(text, b"plugin.GetPluginNames", 21)
        or length == 16 and not memcmp(text, b"plugin.GetStatus", 16)
    ):
        return msgid | OWES_ERROR  # a step may have any other method, which a client can plant
    if at[0] != 0x91 or at[1] & 0xF0 != 0x80 or at[1] == 0x80:
        return msgid | OWES_POLICY
    at += 2
    if whole and at[0] == 0xA4 and not memcmp(at + 1, b"Data", 4):
        at = skip_value(at + 5, end)
    if at == NULL or at == end or at[0] != 0xA7 or memcmp(at + 1, b"EventId", 7):
        return msgid | OWES_POLICY
    at += 8
    if not take_uint(&at, &number):
        return msgid | OWES_POLICY
    return msgid | (OWES_EXIT if number & CLOSED_BIT else OWES_ERROR)


cdef object slow_request(const uint8_t *p, const uint8_t *end):
    return Request(*_wire.decode_request(PyBytes_FromStringAndSize(<const char *>p, end - p)))


# What a type byte says: the size of what follows (of the length, where there is one), and a kind.
cdef enum:
    T_SCALAR = 0
    T_FIXED_MAP = 1
    T_FIXED_ARRAY = 2
    T_BYTES = 3
    T_EXT = 4
    T_ARRAY = 5
    T_MAP = 6
    T_RESERVED = 7

cdef uint8_t KINDS[256]
cdef uint8_t SIZES[256]


cdef void fill_tables() noexcept:
    cdef int byte
    for byte in range(256):
        KINDS[byte] = T_SCALAR
        SIZES[byte] = 0
        if 0x80 <= byte < 0x90:
            KINDS[byte] = T_FIXED_MAP
            SIZES[byte] = byte & 0x0F
        elif 0x90 <= byte < 0xA0:
            KINDS[byte] = T_FIXED_ARRAY
            SIZES[byte] = byte & 0x0F
        elif 0xA0 <= byte < 0xC0:
            SIZES[byte] = byte & 0x1F
    KINDS[0xC1] = T_RESERVED
    for byte in range(3):
        KINDS[0xC4 + byte] = KINDS[0xD9 + byte] = T_BYTES
        SIZES[0xC4 + byte] = SIZES[0xD9 + byte] = 1 << byte
        KINDS[0xC7 + byte] = T_EXT
        SIZES[0xC7 + byte] = 1 << byte
    SIZES[0xCA] = 4
    SIZES[0xCB] = 8
    for byte in range(4):
        SIZES[0xCC + byte] = SIZES[0xD0 + byte] = 1 << byte
    for byte in range(5):
        SIZES[0xD4 + byte] = 1 + (1 << byte)
    for byte in range(2):
        KINDS[0xDC + byte] = T_ARRAY
        SIZES[0xDC + byte] = 2 << byte
        KINDS[0xDE + byte] = T_MAP
        SIZES[0xDE + byte] = 2 << byte

fill_tables()


cdef inline int take_token(const uint8_t *p, size_t available, uint64_t *size, uint64_t *count) noexcept nogil:
    """What the token at p takes: bytes with its payload, and values that it contains."""
    cdef uint8_t kind = KINDS[p[0]]
    cdef uint64_t length = SIZES[p[0]]
    count[0] = 0
    size[0] = 1
    if kind == T_SCALAR:
        size[0] = 1 + length
    elif kind == T_FIXED_ARRAY:
        count[0] = length
    elif kind == T_FIXED_MAP:
        count[0] = 2 * length
    elif kind == T_RESERVED:
        return SCAN_RESERVED
    else:
        if 1 + length > available:
            return SCAN_MORE
        size[0] = 1 + length
        length = big_endian(p + 1, <int>length)
        if kind == T_BYTES:
            size[0] += length
        elif kind == T_EXT:
            size[0] += 1 + length
        elif kind == T_ARRAY:
            count[0] = length
        else:
            count[0] = 2 * length
    return SCAN_DONE


cdef const uint8_t *skip_value(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """The position behind the value at p, in a message that is known to be complete."""
    cdef uint64_t left = 1, size, count
    while left:
        if p >= end or take_token(p, end - p, &size, &count) != SCAN_DONE:
            return NULL
        p += size
        left += count
        left -= 1
    return p


cdef class Decoder:
    """Bytes in, requests out. No socket, no thread.

    Args:
        max_message: largest message, bytes.
        max_depth: deepest nesting of containers in a message.
    """

    cdef uint8_t *buffer
    cdef size_t capacity
    cdef size_t size  # bytes in the buffer
    cdef size_t start  # of the message that is being scanned
    cdef uint64_t pos  # of its next token; may lie behind the end of the buffer
    cdef uint64_t *stack  # values still missing in each open container
    cdef size_t depth
    cdef size_t stack_capacity
    cdef bint closed  # all containers are closed: at most a payload is missing
    cdef uint64_t claimed  # of a message that is too large
    cdef uint64_t taken  # bytes of all messages that have been returned
    cdef uint64_t max_message
    cdef size_t max_depth
    cdef object error
    cdef bint is_wrong  # there is an error
    cdef uint64_t lacking  # bytes of a message that is too large

    def __init__(self, max_message=_wire.MAX_MESSAGE, max_depth=_wire.MAX_DEPTH):
        _wire.check_bounds(max_message, max_depth)
        self.max_message = max_message
        self.max_depth = max_depth

    def __dealloc__(self):
        free(self.buffer)
        free(self.stack)

    @property
    def consumed(self):
        """Bytes of all messages that have been returned."""
        return self.taken

    @property
    def pending(self):
        """Bytes that wait for the rest of their message."""
        return self.size - self.start

    @property
    def missing(self):
        """Bytes of the last message that are still to come; 0 if that cannot be told yet."""
        return self.count_missing()

    cdef uint64_t count_missing(self) noexcept nogil:
        if self.is_wrong:
            return self.lacking
        if self.closed and self.pos > self.size:
            return self.pos - self.size
        return 0

    cdef bint make_room(self, size_t wanted) noexcept nogil:
        """Make room for ``wanted`` more bytes behind those that are there."""
        cdef size_t capacity
        cdef uint8_t *buffer
        if self.start:
            self.size -= self.start
            self.pos -= self.start
            memmove(self.buffer, self.buffer + self.start, self.size)
            self.start = 0
        if self.capacity - self.size >= wanted:
            return True
        capacity = 2 * self.capacity
        if capacity < self.size + wanted:
            capacity = self.size + wanted
        buffer = <uint8_t *>realloc(self.buffer, capacity)
        if buffer == NULL:
            return False
        self.buffer = buffer
        self.capacity = capacity
        return True

    def feed(self, data):
        """Append bytes that have arrived."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if not self.make_room(view.len):
                PyErr_NoMemory()
            if view.len:  # memcpy takes no NULL, which an empty buffer may be
                memcpy(self.buffer + self.size, view.buf, view.len)
                self.size += view.len
        finally:
            PyBuffer_Release(&view)

    def next(self):
        """Return the next request, or None while it is not complete.

        Raises:
            ProtocolError: the bytes are no request, or over a bound. The stream has no meaning
                any more: every later call raises the same error.
        """
        return self.take(self.scan())

    cdef object take(self, int scanned):
        """The request that a scan has found, None, or the error that it has found."""
        cdef object request
        cdef uint64_t begin
        if self.error is not None:
            raise self.error
        if scanned == SCAN_MORE:
            return None
        try:
            if scanned == SCAN_DONE:
                request = take_request(self.buffer + self.start, self.buffer + self.pos)
            elif scanned == SCAN_BAD_START:
                raise _wire.start_error(self.buffer[self.start])
            elif scanned == SCAN_RESERVED:
                raise _wire.reserved_error()
            elif scanned == SCAN_TOO_LARGE:
                raise MessageTooLarge(
                    _wire.SIZE_ADVICE.format(size=self.claimed, limit=self.max_message)
                )
            elif scanned == SCAN_TOO_DEEP:
                raise NestingTooDeep(_wire.NESTING_ADVICE.format(limit=self.max_depth))
            else:
                raise MemoryError("no memory for a connection's bytes")
        except ProtocolError as exc:
            self.error = exc
            self.is_wrong = True
            raise
        self.taken += self.pos - self.start
        self.start = self.pos
        if self.start == self.size:
            self.start = self.size = 0
            self.pos = 0
            if self.capacity > SHRINK_ABOVE:
                free(self.buffer)
                self.buffer = NULL
                self.capacity = 0
        self.closed = False
        return request

    cdef bint is_last(self) noexcept nogil:
        """Whether only one value is missing, in all open containers."""
        cdef size_t i
        for i in range(self.depth):
            if self.stack[i] != 1:
                return False
        return True

    cdef int scan(self) noexcept nogil:
        """Go on finding the end of the message at ``start``."""
        cdef uint64_t size, count
        cdef uint64_t *stack
        cdef size_t capacity
        cdef int found
        while not self.closed and self.pos < self.size:
            if self.pos == self.start:
                if KINDS[self.buffer[self.pos]] not in (T_ARRAY, T_FIXED_ARRAY):
                    return SCAN_BAD_START
            found = take_token(
                self.buffer + self.pos, self.size - <size_t>self.pos, &size, &count
            )
            if found != SCAN_DONE:
                return found
            self.claimed = self.pos + size + count - self.start
            if self.claimed > self.max_message:  # each value has at least one byte
                if not count and self.is_last() and self.pos + size > self.size:
                    self.lacking = self.pos + size - self.size
                return SCAN_TOO_LARGE
            if count:
                if self.depth >= self.max_depth:
                    return SCAN_TOO_DEEP
                if self.depth == self.stack_capacity:
                    capacity = 2 * self.stack_capacity + 16
                    stack = <uint64_t *>realloc(self.stack, capacity * sizeof(uint64_t))
                    if stack == NULL:
                        return SCAN_NO_MEMORY
                    self.stack = stack
                    self.stack_capacity = capacity
                self.stack[self.depth] = count
                self.depth += 1
            else:
                while self.depth:
                    self.stack[self.depth - 1] -= 1
                    if self.stack[self.depth - 1]:
                        break
                    self.depth -= 1
                self.closed = self.depth == 0
            self.pos += size
        if self.closed and self.pos <= self.size:
            return SCAN_DONE
        return SCAN_MORE


# --- sleeping ----------------------------------------------------------------------------------

cdef class Waiter:
    """What one thread sleeps on: ``wake`` by another thread ends its sleep.

    ``wake`` before the sleep is not lost. A gated waiter passes the gate (see ``_gate.h``) on its
    way back from any sleep here and holds it until the next one; ``lost`` counts how often the
    gate was opened meanwhile because its holder was blocked.
    """

    cdef int read_fd
    cdef int write_fd
    cdef bint held
    cdef public bint gated
    cdef public object lost
    cdef kp_state state
    cdef object reading  # while the state is not READS_NONE
    cdef Waiter following  # to be woken at the next sleep
    cdef int following_fd

    def __cinit__(self):
        self.read_fd = self.write_fd = self.following_fd = -1
        self.read_fd, self.write_fd = open_wakeup()
        self.gated = True
        self.lost = 0

    def __init__(self):
        pass  # refuses arguments, which __cinit__ would ignore

    def fileno(self):
        """The descriptor that is readable once the waiter has been woken."""
        return self.read_fd

    def wake(self):
        """End the sleep, or the next one."""
        send_wakeup(self.write_fd)

    def wake_next(self, Waiter other):
        """Wake another waiter's thread as soon as this one sleeps, which it is about to."""
        if self.following is not None:
            self.following.wake()
            self.following_fd = -1
        self.following = other
        if other is not None:
            self.following_fd = other.write_fd

    def wait(self):
        """Sleep until woken."""
        cdef pollfd fds[1]
        cdef int lost
        if self.read_fd < 0:
            raise ValueError("the waiter is closed")
        with nogil:
            lost = self.leave_gate()
            self.wake_following()
            fds[0].fd = self.read_fd
            fds[0].events = POLLIN
            while poll(fds, 1, -1) < 0 and errno == EINTR:
                pass
            self.drain()
            self.enter_gate()
        self.following = None
        if lost:
            self.lost += 1

    def take_reading(self):
        """Take over the connection that the thread reads in its sleep, if it can be had."""
        if not kp_change(&self.state, ASLEEP, READS_NONE):
            return None
        connection, self.reading = self.reading, None
        return connection

    def converse(self, Event event not None, bytes frame not None):
        """Send a PDK call of an event that runs in this thread, and sleep until it is answered."""
        return self.do_converse(event, frame)

    cdef Request do_converse(self, Event event, bytes frame):
        cdef Request request
        cdef Connection connection
        cdef dict waiting = event.events.waiting
        event.waiting_since = event.events.ticks
        waiting[event.id] = event
        if type(event.connection) is not Connection or (<Connection>event.connection).borrowed:
            return event.mode.converse(event, frame, None)
        connection = <Connection>event.connection
        try:
            request = connection.exchange(frame, self)
        except (ConnectionClosed, ProtocolError) as exc:
            return event.mode.converse(event, b"", exc)
        except BaseException:  # no memory, no stack: what has arrived is lost, so Kong is told
            event.over = True
            event.mode.refuse(connection)
            if waiting.pop(event.id, None) is not event:
                self.wait()  # whoever has taken the event is about to wake this thread
            raise
        if (
            request is not None
            and (request.kind == STEP or request.kind == STEP_ERROR)
            and request.target == event.id
            and waiting.pop(event.id, None) is event
        ):
            event.msgid = request.msgid
            return request
        arrived = None if request is None else [request]
        request = None  # it may be large, and what follows a long sleep: the mode alone has it
        return event.mode.converse(event, b"", arrived)

    def release(self):
        """Leave the gate; for a thread that will not sleep on this waiter again."""
        self.leave_gate()
        self.wake_next(None)

    def close(self):
        """Release the descriptors."""
        if self.read_fd >= 0:
            os.close(self.read_fd)
            if self.write_fd != self.read_fd:
                os.close(self.write_fd)
            self.read_fd = self.write_fd = -1

    cdef inline void wake_following(self) noexcept nogil:
        cdef uint64_t one = 1
        if self.following_fd >= 0:
            # It cannot fail but for a full pipe, which wakes as well.
            write(self.following_fd, &one, sizeof(one))
            self.following_fd = -1

    cdef void drain(self) noexcept nogil:
        cdef char sink[4096]
        read(self.read_fd, sink, sizeof(sink))

    cdef inline void enter_gate(self) noexcept nogil:
        if self.gated:
            kp_gate_enter(<void *>self)
            self.held = True

    cdef inline int leave_gate(self) noexcept nogil:
        """Leave the gate if it is held; 1 if it had been opened meanwhile."""
        if not self.held:
            return 0
        self.held = False
        return kp_gate_leave(<void *>self)


def reset_gate():
    """Open the gate and forget its holder; for a forked child, which has neither."""
    kp_gate_reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset_gate)


# --- sockets -----------------------------------------------------------------------------------

cdef class Connection(Decoder):
    """A connected socket as a stream of requests and replies.

    One thread at a time reads from it and writes to it: who owns it is the loop's and the mode's
    business. Closing it from another thread is done by :meth:`shutdown`.

    Args:
        sock: a connected stream socket; the connection owns it from now on.
        max_message: largest message, bytes.
        max_depth: deepest nesting of a message.

    Attributes:
        opening: goes out in front of the first reply.
        borrowed: another process reads this connection; here one reply is sent, and no more.
        owes: what is to be answered; 0 for nothing.
        slot: the place of that in memory that another process sees; -1 if there is none.
    """

    cdef object sock
    cdef int fd
    cdef int failed  # errno of what failed
    cdef public bytes opening
    cdef public bint borrowed
    cdef uint64_t owed
    cdef uint64_t *debt  # in shared memory; NULL if there is none
    cdef Py_buffer shared  # holds that memory
    cdef readonly Py_ssize_t slot
    cdef public object stuck  # the peer does not read: what wakes those who wait to send
    cdef int poller  # that it has been registered with, -1 if none

    def __init__(self, sock, max_message=_wire.MAX_MESSAGE, max_depth=_wire.MAX_DEPTH):
        Decoder.__init__(self, max_message, max_depth)
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.opening = b""
        self.poller = -1
        self.borrowed = False

    def __cinit__(self, *_, **__):
        self.slot = -1

    def __dealloc__(self):
        if self.debt != NULL:
            PyBuffer_Release(&self.shared)

    @property
    def owes(self):
        """What is to be answered; 0 for nothing."""
        return self.owed

    def fileno(self):
        """The descriptor, -1 once closed."""
        return self.fd

    def share(self, memory, Py_ssize_t slot, uint64_t owes=0):
        """Keep what is owed where others see it."""
        cdef Py_buffer view
        PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
        if not 0 <= slot < view.len // <Py_ssize_t>(DEBT_SIZE * sizeof(uint64_t)):
            PyBuffer_Release(&view)
            raise IndexError(f"no slot {slot}")
        if self.debt != NULL:
            PyBuffer_Release(&self.shared)
        self.shared = view
        self.debt = <uint64_t *>view.buf + DEBT_SIZE * slot
        self.slot = slot
        self.owed = owes

    def lend(self, uint64_t owner):
        """Leave the answer to another process."""
        cdef uint64_t owes = self.owed | OWES_LENT | owner << OWES_OWNER
        if self.debt != NULL:
            kp_note(self.debt, owes)
        self.owed = 0
        return owes

    def reclaim(self, uint64_t owes):
        """Take back what was lent; False if that has been answered meanwhile."""
        cdef uint64_t own = owes & (OWES_LENT - 1)
        if self.debt != NULL and not kp_swap(self.debt, owes, own):
            return False
        self.owed = own
        return True

    cdef object take(self, int scanned):
        """As that of Decoder; what it returns is owed an answer."""
        cdef object found
        try:
            found = Decoder.take(self, scanned)
        except ProtocolError:
            if not self.owed:
                self.note(_wire.debt_of_part(self.head()) | OWES_REST, kp_now())
            raise
        if found is not None:
            self.owe(<Request>found)
        elif self.debt != NULL and self.size > self.start:
            self.owe_part()
        return found

    cdef inline int owe(self, Request request) except -1:
        cdef uint64_t owes
        if request.kind == IGNORE:
            owes = 0
        elif type(request.msgid) is not int:
            owes = OWES_UNKNOWN
        else:
            owes = PyLong_AsUnsignedLongLongMask(request.msgid)
            if owes > OWES_MSGID:
                owes = OWES_UNKNOWN
            elif (
                request.kind != CALL
                and PyLong_AsUnsignedLongLongMask(request.target) & CLOSED_BIT
                and (request.kind != HANDLE_EVENT or request.value in CLOSABLE)
            ):
                owes |= OWES_EXIT
            else:
                owes |= OWES_ERROR
        self.note(owes, request.at)
        return 0

    cdef inline void note(self, uint64_t owes, double at) noexcept nogil:
        self.owed = owes
        if self.debt != NULL:
            kp_note(self.debt + 2, self.count_missing())
            kp_note(self.debt + 1, <uint64_t>(at * 1000))
            kp_note(self.debt, owes)
            kp_note(self.debt + 3, 0)

    cdef bytes head(self):
        cdef size_t size = self.size - self.start
        if size > HEAD_SIZE:
            size = HEAD_SIZE
        return PyBytes_FromStringAndSize(<const char *>self.buffer + self.start, size)

    cdef int owe_part(self) except -1:
        """Note that a part of a request has come, whose rest the process may not live to see."""
        self.note(_wire.debt_of_part(self.head()) | OWES_REST, kp_now())
        return 0

    cdef inline void note_bytes(self, int scanned) noexcept nogil:
        """Note what has been read, before anything waits for the GIL."""
        if self.debt == NULL:
            return
        if scanned == SCAN_DONE:
            self.note(
                debt_of_bytes(self.buffer + self.start, self.buffer + self.pos, True), kp_now()
            )
        elif scanned == SCAN_MORE and self.size > self.start:
            if self.owed:
                kp_note(self.debt + 2, self.count_missing())
            else:
                self.note(
                    OWES_REST
                    | debt_of_bytes(self.buffer + self.start, self.buffer + self.size, False),
                    kp_now(),
                )

    cdef inline void settle(self) noexcept nogil:
        """Note that all of an answer has been sent."""
        cdef uint64_t owes = self.owed
        self.owed = 0
        if owes and self.debt != NULL:
            kp_swap(self.debt, owes, 0)  # else its reader has noted the next request already

    cdef inline void note_cut(self, Py_ssize_t size) noexcept nogil:
        """Note that an answer may go out in part."""
        if size > CUT_ABOVE and self.owed and self.debt != NULL:
            self.owed |= OWES_CUT
            kp_note(self.debt, self.owed)

    cdef Request receive_once(self):
        """As receive, without a second look at a socket that has just been read."""
        cdef int got = GOT_SCAN
        cdef int scanned = self.scan()
        if scanned == SCAN_MORE:
            got = self.read_some()
            if got == GOT_SCAN:
                scanned = self.scan()
        if got != GOT_SCAN and got != GOT_WAKE:
            self.fail(got)
        return self.take(scanned)

    def receive(self):
        """Return the next request if it has arrived, else None; never blocks.

        Raises:
            ConnectionClosed: the peer has closed; ReplyLost: without having read the last reply.
            ProtocolError: the peer sent what is no request.
        """
        cdef int got = GOT_SCAN
        cdef int scanned
        with nogil:
            while True:
                scanned = self.scan()
                self.note_bytes(scanned)
                if scanned != SCAN_MORE:
                    break
                got = self.read_some()
                if got != GOT_SCAN:
                    break
        if got == GOT_WAKE:  # nothing more has arrived
            return self.take(SCAN_MORE)
        if got != GOT_SCAN:
            self.fail(got)
        return self.take(scanned)

    def send(self, bytes data not None):
        """Send all of ``data``; blocks this thread while the peer does not read.

        Raises:
            ReplyLost: the peer is gone, or has not read anything for a minute.
        """
        cdef int got
        cdef const char *p
        cdef Py_ssize_t size
        data = self.with_opening(data)
        p = PyBytes_AS_STRING(data)
        size = PyBytes_GET_SIZE(data)
        with nogil:
            got = self.write_all(p, size)
        if got != GOT_SCAN:
            self.fail(got)

    def send_nowait(self, bytes data not None, Py_ssize_t start=0):
        """Send what goes out without blocking.

        Args:
            data: a reply.
            start: how much of it has been sent before.

        Returns:
            How much of it has been sent now; ``len(data)`` if all of it.

        Raises:
            ReplyLost: the peer is gone.
        """
        return self.do_send_nowait(data, start)

    cdef Py_ssize_t do_send_nowait(self, bytes data, Py_ssize_t start) except -1:
        cdef ssize_t count
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        self.note_cut(size)
        while 0 <= start < size:
            count = send(self.fd, PyBytes_AS_STRING(data) + start, size - start, MSG_NOSIGNAL)
            if count >= 0:
                start += count
            elif errno == EAGAIN:
                break
            elif errno != EINTR:
                self.failed = errno
                self.fail(GOT_WRITE_ERROR)
        if size and start >= size:
            self.settle()
        return start

    cpdef object exchange(self, bytes data, Waiter waiter):
        """Send ``data`` if there is any, then block until a request arrives.

        Returns:
            The request, or None when ``waiter`` was woken first. Then somebody may have taken the
            connection: see :meth:`Waiter.take_reading`.

        Raises:
            ConnectionClosed, ReplyLost, ProtocolError: as :meth:`send` and :meth:`receive`.
        """
        if data is None or waiter is None:
            raise TypeError("exchange wants bytes and a Waiter")
        cdef int got = GOT_SCAN
        cdef int scanned = SCAN_MORE
        cdef int lost
        cdef const char *p
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if self.fd < 0:
            raise ConnectionClosed("closed already")
        if size:
            data = self.with_opening(data)
            size = PyBytes_GET_SIZE(data)
        p = PyBytes_AS_STRING(data)
        waiter.reading = self
        with nogil:
            lost = waiter.leave_gate()
            waiter.wake_following()
            if size:
                got = self.write_all(p, size)
            while got == GOT_SCAN:
                scanned = self.scan()
                self.note_bytes(scanned)
                if scanned != SCAN_MORE:
                    break
                got = self.wait_some(waiter)
            waiter.enter_gate()
        waiter.following = None
        if lost:
            waiter.lost += 1
        if got == GOT_WAKE:
            return None
        waiter.reading = None
        if got != GOT_SCAN:
            self.fail(got)
        return self.take(scanned)

    def shutdown(self):
        """Let whoever reads or writes find the connection closed; for other threads."""
        self.settle()
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster

    def detach(self):
        """Give the socket away, with what is owed there; the connection is as good as closed."""
        self.owed = 0
        self.fd = -1
        sock = socket.socket(fileno=self.sock.detach())
        sock.setblocking(False)
        return sock

    def close(self):
        """Close the socket. May be called again."""
        self.settle()
        self.fd = -1
        self.sock.close()

    cdef bytes with_opening(self, bytes data):
        if self.opening:
            data = self.opening + data
            self.opening = b""
        return data

    cdef object fail(self, int got):
        if got == GOT_EOF:
            raise ConnectionClosed("closed by the peer")
        if got == GOT_WRITE_TIMEOUT:
            raise ReplyLost("the peer does not read its reply")
        verb = "read" if got == GOT_READ_ERROR else "write"
        raise ReplyLost(f"cannot {verb}: {os.strerror(self.failed)}")

    cdef int read_some(self) noexcept nogil:
        """Read once; GOT_WAKE if there was nothing to read."""
        cdef ssize_t count
        cdef size_t wanted = READ_SIZE
        if self.pos > self.size + wanted:  # a long value is on its way: read it in large parts
            wanted = <size_t>min(self.pos - self.size, <uint64_t>(1 << 20))
        if not self.make_room(wanted):
            self.failed = ENOMEM
            return GOT_READ_ERROR
        if self.debt != NULL and self.size == 0:
            return self.read_first()
        while True:
            count = recv(
                self.fd, self.buffer + self.size, self.capacity - self.size, 0
            )
            if count > 0:
                self.size += count
                return GOT_SCAN
            if count == 0:
                return GOT_EOF
            if errno == EAGAIN:
                return GOT_WAKE
            if errno != EINTR:
                self.failed = errno
                return GOT_READ_ERROR

    cdef int read_first(self) noexcept nogil:
        """As read_some, of a new request; its first bytes go to the memory that others see."""
        cdef iovec parts[2]
        cdef ssize_t count
        cdef uint8_t *head = <uint8_t *>(self.debt + 4)
        memset(head, 0, HEAD_SIZE)
        parts[0].iov_base = head
        parts[0].iov_len = HEAD_SIZE
        parts[1].iov_base = self.buffer + HEAD_SIZE
        parts[1].iov_len = self.capacity - HEAD_SIZE
        kp_note(self.debt + 3, 1)
        while True:
            count = readv(self.fd, parts, 2)
            if count > 0:
                memcpy(self.buffer, head, min(count, <ssize_t>HEAD_SIZE))
                self.size = count
                return GOT_SCAN
            if count < 0 and errno == EINTR:
                continue
            kp_note(self.debt + 3, 0)
            if count == 0:
                return GOT_EOF
            if errno == EAGAIN:
                return GOT_WAKE
            self.failed = errno
            return GOT_READ_ERROR

    cdef int wait_some(self, Waiter waiter) noexcept nogil:
        """Sleep until there is something to read, and read it; GOT_WAKE if woken."""
        cdef pollfd fds[2]
        cdef int got
        cdef int count = 2
        fds[0].fd = waiter.read_fd
        fds[0].events = POLLIN
        fds[1].fd = self.fd
        fds[1].events = POLLIN
        kp_set(&waiter.state, ASLEEP)
        while True:
            fds[0].revents = fds[1].revents = 0
            if poll(fds, count, -1) < 0:
                if errno == EINTR:
                    continue
                if kp_change(&waiter.state, ASLEEP, READS_NONE):
                    self.failed = errno
                    return GOT_READ_ERROR
                count = 1
                continue
            if fds[0].revents:
                waiter.drain()
                return GOT_WAKE
            if not kp_change(&waiter.state, ASLEEP, READING):
                count = 1  # somebody else reads it, and is about to wake us
                continue
            got = self.read_some()
            if got != GOT_WAKE:
                kp_set(&waiter.state, READS_NONE)
                return got
            kp_set(&waiter.state, ASLEEP)

    cdef int write_all(self, const char *p, Py_ssize_t size) noexcept nogil:
        cdef pollfd fds[1]
        cdef ssize_t count
        cdef int ready
        if not size:
            return GOT_SCAN
        self.note_cut(size)
        while size:
            count = send(self.fd, p, size, MSG_NOSIGNAL)
            if count >= 0:
                p += count
                size -= count
            elif errno == EAGAIN:
                fds[0].fd = self.fd
                fds[0].events = POLLOUT
                ready = poll(fds, 1, SEND_TIMEOUT_MS)
                if ready == 0:
                    return GOT_WRITE_TIMEOUT
                if ready < 0 and errno != EINTR:
                    self.failed = errno
                    return GOT_WRITE_ERROR
            elif errno != EINTR:
                self.failed = errno
                return GOT_WRITE_ERROR
        self.settle()
        return GOT_SCAN


# --- values to bytes ---------------------------------------------------------------------------

cdef class Writer:
    """A buffer that grows: on the stack first, then on the heap."""

    cdef char[512] small
    cdef char *data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity

    def __cinit__(self):
        self.data = self.small
        self.capacity = sizeof(self.small)

    def __dealloc__(self):
        if self.data != self.small:
            free(self.data)

    cdef int put(self, const void *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t capacity
        cdef char *larger
        if self.capacity - self.size < size:
            capacity = 2 * self.capacity + size
            if self.data == self.small:
                larger = <char *>malloc(capacity)
                if larger != NULL:
                    memcpy(larger, self.small, self.size)
            else:
                larger = <char *>realloc(self.data, capacity)
            if larger == NULL:
                PyErr_NoMemory()
            self.data = larger
            self.capacity = capacity
        memcpy(self.data + self.size, data, size)
        self.size += size
        return 0

    cdef int put_sized(self, uint8_t byte, int size, uint64_t number) except -1:
        """A type byte and a big-endian number of ``size`` bytes."""
        cdef uint8_t head[9]
        cdef int i
        head[0] = byte
        for i in range(size):
            head[size - i] = number & 0xFF
            number >>= 8
        return self.put(head, 1 + size)

    cdef int put_int(self, int64_t number) except -1:
        if number >= 0:
            if number < 0x80:
                return self.put_sized(<uint8_t>number, 0, 0)
            if number <= 0xFF:
                return self.put_sized(0xCC, 1, number)
            if number <= 0xFFFF:
                return self.put_sized(0xCD, 2, number)
            if number <= 0xFFFFFFFFLL:
                return self.put_sized(0xCE, 4, number)
            return self.put_sized(0xCF, 8, number)
        if number >= -32:
            return self.put_sized(<uint8_t>(number & 0xFF), 0, 0)
        if number >= -0x80:
            return self.put_sized(0xD0, 1, <uint64_t>number)
        if number >= -0x8000:
            return self.put_sized(0xD1, 2, <uint64_t>number)
        if number >= -0x80000000LL:
            return self.put_sized(0xD2, 4, <uint64_t>number)
        return self.put_sized(0xD3, 8, <uint64_t>number)

    cdef int put_text(self, const char *text, Py_ssize_t size) except -1:
        if size < 32:
            self.put_sized(<uint8_t>(0xA0 | size), 0, 0)
        elif size <= 0xFF:
            self.put_sized(0xD9, 1, size)
        elif size <= 0xFFFF:
            self.put_sized(0xDA, 2, size)
        elif size <= 0xFFFFFFFFLL:
            self.put_sized(0xDB, 4, size)
        else:
            raise ValueError("string is too large")
        return self.put(text, size)

    cdef bint put_simple(self, object value) except -1:
        """Write a value of a frequent exact type; False if it is of another one."""
        cdef int overflow = 0
        cdef int64_t number
        cdef double real
        cdef uint64_t bits
        cdef Py_ssize_t size
        cdef const char *text
        if type(value) is str:
            try:
                text = PyUnicode_AsUTF8AndSize(value, &size)
            except UnicodeEncodeError:
                return False
            self.put_text(text, size)
        elif value is None:
            self.put_sized(0xC0, 0, 0)
        elif value is True:
            self.put_sized(0xC3, 0, 0)
        elif value is False:
            self.put_sized(0xC2, 0, 0)
        elif type(value) is int:
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow:
                return False
            self.put_int(number)
        elif type(value) is float:
            real = PyFloat_AS_DOUBLE(value)
            memcpy(&bits, &real, 8)
            self.put_sized(0xCB, 8, bits)
        elif type(value) is bytes:
            size = PyBytes_GET_SIZE(value)
            if size <= 0xFF:
                self.put_sized(0xC4, 1, size)
            elif size <= 0xFFFF:
                self.put_sized(0xC5, 2, size)
            elif size <= 0xFFFFFFFFLL:
                self.put_sized(0xC6, 4, size)
            else:
                return False
            self.put(PyBytes_AS_STRING(value), size)
        else:
            return False
        return True

    cdef int put_value(self, object value) except -1:
        if not self.put_simple(value):
            self.put_bytes(_wire.pack_value(value))
        return 0

    cdef int put_bytes(self, bytes data) except -1:
        return self.put(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef bytes result(self):
        global spare_writer
        cdef bytes data = PyBytes_FromStringAndSize(self.data, self.size)
        if self.capacity <= SPARE_CAPACITY:
            spare_writer = self
        return data


cdef enum:
    SPARE_CAPACITY = 16384

cdef Writer spare_writer = None


cdef Writer new_writer():
    """The one that was used last, if nobody is using it."""
    global spare_writer
    cdef Writer writer = spare_writer
    if writer is None:
        return Writer.__new__(Writer)
    spare_writer = None
    writer.size = 0
    return writer


cdef Writer reply(object msgid):
    cdef Writer writer = new_writer()
    writer.put_bytes(REPLY_HEAD)
    writer.put_value(msgid)
    return writer


cpdef bytes encode_call(msgid, event_id, str function, tuple args):
    """The reply that has Kong run a PDK function and step with its result.

    Where a None stands before another argument they are padded, see ``_wire.pad_holes``.

    Raises:
        ArgumentError: an argument cannot be sent; names function and argument.
    """
    cdef Writer writer
    cdef Py_ssize_t count
    cdef Py_ssize_t index
    cdef object value
    cdef bint none = False
    if function is None or args is None:
        raise TypeError("encode_call wants the function's name and a tuple of arguments")
    writer = reply(msgid)
    for value in args:
        if value is None:
            none = True
        elif none:
            args = _wire.pad_holes(args)
            break
    count = len(args)
    writer.put_bytes(CALL_METHOD)
    writer.put_value(function)
    writer.put_bytes(CALL_ARGS)
    if count < 16:
        writer.put_sized(<uint8_t>(0x90 | count), 0, 0)
    else:
        _wire.check_arguments(function, args)
        writer.put_sized(0xDC, 2, count)
    for index in range(count):
        value = args[index]
        try:
            if not writer.put_simple(value):
                writer.put_bytes(_wire.pack_value(value))
        except Exception as exc:
            raise _wire.argument_error(function, index, value, exc) from exc
    writer.put_bytes(EVENT_ID)
    writer.put_value(event_id)
    return writer.result()


cpdef bytes encode_return(msgid, event_id):
    """The reply that says that the handler is done."""
    cdef Writer writer = reply(msgid)
    writer.put_bytes(RETURN_DATA)
    writer.put_bytes(EVENT_ID)
    writer.put_value(event_id)
    return writer.result()


def encode_result(msgid, result):
    """The reply that carries the result of a call."""
    cdef Writer writer = reply(msgid)
    writer.put_bytes(NIL)
    writer.put_value(result)
    return writer.result()


def encode_error(msgid, text):
    """The reply that says why a call failed."""
    cdef Writer writer = reply(msgid)
    writer.put_value(text)
    writer.put_bytes(NIL)
    return writer.result()


def encode_notification(label, value):
    """A message to Kong that nobody answers."""
    cdef Writer writer = new_writer()
    writer.put_bytes(NOTIFICATION_HEAD)
    writer.put_value(label)
    writer.put_value(value)
    return writer.result()


# --- connections that nobody reads ---------------------------------------------------------------

cdef enum:
    READY_BATCH = 256
    # A poller waits a moment for more itself, where little is under way: Kong's next step is on its
    # way then, and the way through the outer loop would take longer than the step.
    WAIT_FOR_MORE = 60000  # nanoseconds
    WAIT_BELOW = 4  # connections ready at a time
    WAIT_ROUNDS = 16  # so that the outer loop gets its turn
    WAITS_IN_VAIN = 8  # after so many, as many times more is returned at once


cdef class Poller:
    """Connections that nobody reads, watched until something arrives on them."""

    cdef int fd
    cdef dict parked  # descriptor to connection
    cdef int in_vain  # waits for more, in a row; negative: how often none is made

    def __cinit__(self, new_selector=None):
        self.fd = kp_poll_new()
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.parked = {}

    def __init__(self, new_selector=None):
        pass

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    def fileno(self):
        """A descriptor that is readable while a parked connection is."""
        return self.fd

    cdef int watch(self, Connection connection, bint once) except -1:
        cdef bint again = connection.poller == self.fd
        if connection.fd < 0 or self.fd < 0:
            raise ValueError("closed already")
        self.parked[connection.fd] = connection
        connection.poller = self.fd
        if kp_poll_watch(self.fd, connection.fd, again, once) < 0:
            del self.parked[connection.fd]
            connection.poller = -1
            raise OSError(errno, os.strerror(errno))
        return 0

    def park(self, Connection connection not None):
        """Watch a connection until :meth:`take_ready` finds it."""
        self.watch(connection, True)

    def keep(self, Connection connection not None):
        """Watch a connection until it is forgotten, for :meth:`read_ready`."""
        self.watch(connection, False)

    def forget(self, Connection connection not None):
        """Watch a connection no longer, if it was; to be called before it is closed."""
        if connection.poller == self.fd and connection.fd >= 0:
            connection.poller = -1
            self.parked.pop(connection.fd, None)
            # Closing does not end it where another process holds a duplicate.
            kp_poll_drop(self.fd, connection.fd)

    def unpark(self, Connection connection not None):
        """Watch a connection no longer; False if it was not watched, or has just been found."""
        if connection.fd < 0 or self.parked.get(connection.fd) is not connection:
            return False
        self.forget(connection)
        return True

    def take_ready(self):
        """The connections on which something has arrived; they are watched no longer."""
        cdef int fds[READY_BATCH]
        cdef int i
        cdef int count = kp_poll_ready(self.fd, fds, READY_BATCH, 0)
        cdef list ready = []
        for i in range(count):
            connection = self.parked.pop(fds[i], None)
            if connection is not None:
                ready.append(connection)
        return ready

    def read_ready(self, Events events not None, begin, route, lose, may_wait):
        """Read what has arrived on parked connections, which stay parked."""
        cdef int fds[READY_BATCH]
        cdef int i, round
        cdef int count = kp_poll_ready(self.fd, fds, READY_BATCH, 0)
        for round in range(WAIT_ROUNDS):
            for i in range(count):
                self.read_one(fds[i], events, begin, route, lose)
            if count == 0 or count >= WAIT_BELOW or self.fd < 0:
                return
            if self.in_vain < 0:
                self.in_vain += 1
                return
            if not may_wait():
                return
            with nogil:
                count = kp_poll_ready(self.fd, fds, READY_BATCH, WAIT_FOR_MORE)
            if count:
                self.in_vain = 0
            else:
                self.in_vain += 1
                if self.in_vain == WAITS_IN_VAIN:
                    self.in_vain = -10 * WAITS_IN_VAIN

    cdef int read_one(
        self, int fd, Events events, object begin, object route, object lose
    ) except -1:
        cdef Connection connection = self.parked.get(fd)
        cdef Request request
        cdef Event event
        if connection is None:
            return 0  # closed by what has just run
        try:
            request = connection.receive_once()
            while request is not None:
                event = None
                if request.kind == STEP or request.kind == STEP_ERROR:
                    event = events.waiting.pop(request.target, None)
                if event is not None:
                    event.connection = connection
                    event.msgid = request.msgid
                    event.sleeper.switch(request)
                elif request.kind == HANDLE_EVENT:
                    begin(connection, request)
                else:
                    route(connection, request)
                if connection.size == connection.start:
                    break
                request = connection.take(connection.scan())
        except Exception as exc:  # no memory, say: one connection pays, the others go on
            lose(connection, exc)
        return 0

    def close(self):
        """Watch nothing any more."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1
        self.parked = {}


# --- events --------------------------------------------------------------------------------------

cdef class Events:
    """The events that wait for a step, by id; new ids; the time."""

    cdef readonly dict waiting
    cdef readonly bint lua_style
    cdef readonly bint checks
    cdef readonly int log_level
    cdef readonly double late
    cdef readonly dict running
    cdef public long ticks
    cdef readonly long started
    cdef int64_t following
    cdef int64_t step

    def __init__(
        self, int64_t first, int64_t step=1, bint lua_style=True, bint checks=True,
        int log_level=_kinds.ALL_LEVELS, double late=INFINITY, bint track=False,
    ):
        self.late = late
        self.running = {} if track else None
        self.waiting = {}
        self.lua_style = lua_style
        self.checks = checks
        self.log_level = log_level
        self.following = first
        self.step = step

    cpdef object next_id(self, bint closed=False):
        """A new id."""
        cdef int64_t number = self.following
        self.following = number + self.step
        self.started += 1
        return number | closed


@cython.freelist(64)
cdef class Event:
    """One phase of one request, from HandleEvent to its end."""

    cdef readonly Events events
    cdef readonly object id
    cdef readonly object instance
    cdef readonly object phase
    cdef readonly object mode
    cdef readonly object runner
    cdef public object connection
    cdef public object msgid
    cdef public object sleeper
    cdef public object greenlet
    cdef public object exited
    cdef public object record
    cdef public long waiting_since
    cdef public bint over
    cdef public bint expired
    cdef public bint abandoned
    cdef public long calls
    cdef public double began
    cdef public double at
    cdef bint busy  # a thread is in the middle of a call, or of the end
    cdef list turns  # locks of those that wait for theirs

    def __init__(
        self, Events events not None, instance, phase, connection, msgid, mode, runner,
        bint closed=False,
    ):
        self.begin(events, instance, phase, connection, msgid, mode, runner, closed)

    cdef int begin(
        self, Events events, object instance, object phase, object connection, object msgid,
        object mode, object runner, bint closed,
    ) except -1:
        self.id = events.next_id(closed)
        self.events = events
        self.instance = instance
        self.phase = phase
        self.connection = connection
        self.msgid = msgid
        self.mode = mode
        self.runner = runner
        self.began = self.at = kp_now()
        return 0

    @cython.nonecheck(True)  # one that has never been initialised has no events
    cpdef object call(self, str function, tuple args):
        """Have Kong run a PDK function."""
        cdef Request step
        cdef bytes frame
        if function is None or args is None:
            raise TypeError("call wants the function's name and a tuple of arguments")
        if self.over and not self.expired:
            raise EventEnded(_wire.ended_text(function))
        # Before the turn is taken: a mapping's own code may make PDK calls.
        msgid = self.msgid
        frame = encode_call(msgid, self.id, function, args)
        self.take_turn()
        try:
            if self.expired:
                raise HandlerTimeout(_wire.EXPIRED)
            if self.over:
                raise EventEnded(_wire.ended_text(function))
            if kp_now() - self.at > self.events.late:
                self.mode.too_late(self)
            if self.msgid is not msgid:  # another call has been made meanwhile
                frame = _wire.with_msgid(frame, msgid, self.msgid)
            self.calls += 1
            if function in TERMINAL:
                self.over = True
                self.exited = args[0] if args else None
                self.mode.send_last(self, frame)
                raise ResponseSent(function)
            if isinstance(self.runner, Waiter):
                step = (<Waiter>self.runner).do_converse(self, frame)
            elif isinstance(self.runner, Switch):
                step = (<Switch>self.runner).do_converse(self, frame)
            else:
                step = self.mode.exchange(self, frame)
            self.at = step.at
        finally:
            self.give_turn()
        if self.expired:
            raise HandlerTimeout(_wire.EXPIRED)
        if step.kind == STEP_ERROR:
            if self.events.lua_style:
                return None, step.value
            raise PDKException(f"{function}: {step.value}")
        return (step.value, None) if self.events.lua_style else step.value

    cpdef bint end(self) except -1:
        """End the event; False if it was over already."""
        self.take_turn()
        over, self.over = self.over, True
        self.give_turn()
        return not over

    cpdef object expire(self, bint in_call=True):
        """Note that the handler has had its time."""
        if in_call:
            self.expired = True
        if self.busy or self.over:
            return None
        self.over = self.expired = True
        # In one step: the thread of the handler may be about to look for it.
        connection, self.connection = self.connection, None
        return connection

    cdef int take_turn(self) except -1:
        """Wait until no other thread is in the middle of a call.

        The GIL keeps this short way consistent: nothing in it runs Python code. Most events have
        one thread only, and need no lock at all.
        """
        lock = None
        while self.busy:
            if lock is None:
                lock = threading.Lock()
                lock.acquire()
                if self.turns is None:
                    self.turns = []
                continue  # Python code has run: look again
            self.turns.append(lock)
            try:
                lock.acquire()  # released by the one before, who leaves `busy` set for us
            except BaseException:
                if lock in self.turns:
                    self.turns.remove(lock)
                else:
                    self.give_turn()
                raise
            return 0
        self.busy = True
        return 0

    cdef int give_turn(self) except -1:
        if self.turns:
            self.turns.pop(0).release()
        else:
            self.busy = False
        return 0


cdef class Namespace:
    """One place in the ``kong`` tree, bound to what makes its calls."""

    cdef readonly object _caller

    def __init__(self, caller):
        self._caller = caller


cdef class Child:
    """An attribute of a namespace: the namespace below it, bound to the same caller."""

    cdef readonly object kind

    def __init__(self, kind not None):
        if not (isinstance(kind, type) and issubclass(kind, Namespace)):
            raise TypeError(f"kind must be a class of namespaces, got {kind!r}")
        self.kind = kind

    def __get__(self, Namespace instance, owner):
        if instance is None:
            return self
        if self.kind is None:
            raise TypeError("a Child that has never been initialised")
        child = kp_new(self.kind, EMPTY)
        if isinstance(child, Namespace):  # a __new__ of its own may return anything
            (<Namespace>child)._caller = instance._caller
        return child

    def __set__(self, Namespace instance, value):
        raise AttributeError("the names of the PDK cannot be set")

    def __delete__(self, Namespace instance):
        raise AttributeError("the names of the PDK cannot be deleted")


cdef inline unsigned int bit_of(object value):
    """The type of an argument as a bit, see _kinds."""
    kind = type(value)
    if kind is str:
        return STR
    if kind is int:
        return INT
    if value is None:
        return NONE
    if kind is bytes:
        return BYTES
    if kind is dict:
        return DICT
    if kind is list:
        return LIST
    if kind is bool:
        return BOOL
    if kind is float:
        return FLOAT
    return OTHER


cdef bint within(object number, double low, double high) except -1:
    """Whether an exact int or float is in bounds; NaN is not."""
    cdef int overflow = 0
    cdef double value
    if type(number) is float:
        value = PyFloat_AS_DOUBLE(number)
    else:
        value = <double>PyLong_AsLongLongAndOverflow(number, &overflow)
        if overflow:
            return low == -INFINITY if overflow < 0 else high == INFINITY
    return low <= value and value <= high


cdef bint holds_right(object value, int holds) except -1:
    """Whether a dict or list, and what is in it, is right as it is."""
    if type(value) is list:
        if holds != HEADER_VALUES:
            return False
        for item in <list>value:
            if type(item) is not str:
                return False
        return True
    for key, item in (<dict>value).items():
        if type(key) is not str:
            return False
        if type(item) is list:
            for each in <list>item:
                if type(each) is not str and (holds == HEADERS or type(each) is not bool):
                    return False
        elif not bit_of(item) & SCALAR:
            return False
    return True


cdef class Function:
    """A PDK function, as an attribute of its namespace."""

    cdef readonly str name
    cdef readonly frozenset phases
    cdef readonly object spec
    cdef readonly int level
    cdef readonly bint variadic
    cdef int result
    cdef Py_ssize_t least
    cdef Py_ssize_t most
    cdef unsigned int[8] bits  # _kinds.MAX_PARAMETERS
    cdef double[8] low
    cdef double[8] high
    cdef int[8] holds
    cdef list texts
    cdef object settle
    cdef object convert

    def __init__(
        self, str name not None, frozenset phases not None, tuple parameters not None,
        Py_ssize_t least, int level, bint variadic, int result, settle, convert, spec,
    ):
        if len(parameters) > MAX_PARAMETERS:
            raise ValueError(f"{name}: more than {MAX_PARAMETERS} parameters")
        self.name = name
        self.phases = phases
        self.least = least
        self.most = 0  # until it is known what each of them takes
        self.level = level
        self.variadic = variadic
        self.result = result
        self.settle = settle
        self.convert = convert
        self.spec = spec
        self.texts = []
        for index, (bits, low, high, texts, holds) in enumerate(parameters):
            self.bits[index] = bits
            self.low[index] = -INFINITY if low is None else low
            self.high[index] = INFINITY if high is None else high
            self.holds[index] = holds
            self.texts.append(texts)
        self.most = len(parameters)

    def __get__(self, instance, owner):
        if instance is None:
            return self
        cdef Method method = Method.__new__(Method)
        method.function = self
        method._caller = (<Namespace?>instance)._caller
        return method

    def __call__(self, Namespace instance not None, /, *args, **kwargs):
        return self.invoke(instance._caller, args, kwargs)

    def __repr__(self):
        return f"<function {self.name}>"

    @property
    def __name__(self):
        return self.name.rpartition(".")[2]

    @property
    def __doc__(self):
        return str(self.spec.doc)

    @property
    def __signature__(self):
        return self.spec.signature(False)

    cpdef bint fits(self, tuple args) except -1:
        """Whether a call with these arguments can go out as it is."""
        cdef Py_ssize_t count = len(args)
        cdef Py_ssize_t index
        cdef unsigned int bit
        if self.variadic:
            for arg in args:
                if type(arg) is not str and type(arg) is not bytes:
                    return False
            return count > 0
        if count < self.least or count > self.most:
            return False
        for index in range(count):
            arg = args[index]
            bit = bit_of(arg)
            if not self.bits[index] & bit:
                return False
            if bit & NUMBER:
                # NaN is within no bounds, but without them it is a number as any other.
                if (self.low[index] != -INFINITY or self.high[index] != INFINITY) and not within(
                    arg, self.low[index], self.high[index]
                ):
                    return False
            elif bit & (STR | BYTES):
                texts = self.texts[index]
                if texts is None:
                    continue
                if bit != STR:
                    return False
                if type(texts) is str:
                    if not (<str>arg).startswith(<str>texts):
                        return False
                elif type(texts) is frozenset:
                    if arg not in texts:
                        return False
                elif texts(arg) is None:
                    return False
            elif self.holds[index] and bit & (DICT | LIST):
                if not holds_right(arg, self.holds[index]):
                    return False
        return True

    @cython.boundscheck(True)  # a stand-in may return any tuple
    cpdef object invoke(self, object caller, tuple args, dict kwargs):
        """Check a call and have it made."""
        cdef bint checks = True
        cdef Event event = None
        cdef Events events
        if isinstance(caller, Event):
            event = <Event>caller
            events = event.events
            phase = event.phase
        else:
            events = getattr(caller, "events", None)
            phase = getattr(caller, "phase", None)
        if events is not None:
            if self.level > events.log_level:
                return (None, None) if events.lua_style else None
            checks = events.checks
        if checks and phase is not None and phase not in self.phases:
            args = self.settle(self, args, {} if kwargs is None else kwargs, phase, True)
        elif kwargs or ((checks or self.variadic) and not self.fits(args)):
            args = self.settle(self, args, {} if kwargs is None else kwargs, None, checks)
        if self.variadic:
            try:
                return caller.call(self.name, args)
            except ArgumentError:  # a text that cannot be sent, and has not been: logged anyway
                return caller.call(self.name, _wire.escape_texts(args))
        result = caller.call(self.name, args) if event is None else event.call(self.name, args)
        if self.result == AS_IT_IS:
            return result
        if type(result) is tuple:
            before = (<tuple>result)[0]
            data = self.restore(before)
            return result if data is before else (data, (<tuple>result)[1])
        return self.restore(result)

    cdef object restore(self, data):
        if self.result == MAP:
            return {} if type(data) is list and not data else data
        if self.result == ARRAY:
            return [] if type(data) is dict and not data else data
        if self.result == RAW:
            return data.encode("utf-8", _wire.ERRORS) if type(data) is str else data
        return data if data is None else self.convert(data)


@cython.final
@cython.freelist(16)
cdef class Method:
    """A PDK function bound to what makes its calls."""

    cdef readonly Function function
    cdef object _caller

    def __init__(self, Function function not None, caller):
        self.function = function
        self._caller = caller

    def __get__(self, instance, owner):
        return self  # inspect takes what has this for a routine, and help() shows it as one

    @cython.nonecheck(True)  # one that has never been initialised has none
    def __call__(self, *args, **kwargs):
        return self.function.invoke(self._caller, args, kwargs)

    @cython.nonecheck(True)
    def __repr__(self):
        return f"<method {self.function.name}>"

    @property
    def __name__(self):
        return self.function.__name__

    @property
    @cython.nonecheck(True)
    def __doc__(self):
        return str(self.function.spec.doc)

    @property
    @cython.nonecheck(True)
    def __signature__(self):
        return self.function.spec.signature(True)


@cython.final
cdef class Switch:
    """How handlers run and sleep in greenlets: by switches to the one that reads the connections."""

    cdef object mode
    cdef object switch
    cdef readonly object current
    cdef object ident
    cdef object spawn
    cdef object thread
    cdef object dispatch
    cdef Py_ssize_t keep
    cdef Py_ssize_t limit
    cdef readonly list idle
    cdef readonly long running

    def __init__(self, mode, switch, current, ident, spawn, Py_ssize_t keep,
                 Py_ssize_t limit=sys.maxsize):
        self.limit = limit
        self.mode = mode
        self.switch = switch
        self.current = current
        self.ident = ident
        self.spawn = spawn
        self.keep = keep
        self.thread = ident()
        self.idle = []

    def begin(self, connection, request):
        """Switch to a greenlet that answers a request."""
        if self.running >= self.limit:
            self.mode.shed(connection, request)
            return
        greenlet = self.idle.pop() if self.idle else self.spawn(self.work)
        greenlet.switch((connection, request))

    def work(self, given):
        """Answer one request after the other, beginning with a pair of connection and request."""
        cdef Request request
        cdef bytes reply
        cdef Event event
        if self.dispatch is None:
            self.dispatch = self.mode.service.run_event
        while given is not None:
            connection, request = given
            self.running += 1
            try:
                if request.kind == HANDLE_EVENT:
                    reply, event = self.dispatch(request, connection, self.mode, self)
                    where = connection if event is None else event.connection
                    if PyBytes_GET_SIZE(reply) and where is not None:
                        self.reply(where, reply)
                else:
                    self.mode.answer(connection, request)
            except BaseException:  # no memory, a bug of ours, a GreenletExit that came late
                self.mode.fail(connection)
            finally:
                self.running -= 1
            # An idle greenlet keeps nothing alive.
            given = connection = request = reply = event = where = None
            if len(self.idle) >= self.keep:
                return
            greenlet = self.current()
            self.idle.append(greenlet)
            try:
                given = self.switch()
            except BaseException:  # what an event has left behind: a gevent.Timeout, say
                if greenlet in self.idle:
                    self.idle.remove(greenlet)
                return

    cdef int reply(self, object where, bytes reply) except -1:
        cdef Py_ssize_t sent = 0
        cdef Connection connection
        if type(where) is Connection:
            connection = <Connection>where
            if not (connection.stuck or connection.opening or connection.borrowed):
                try:
                    sent = connection.do_send_nowait(reply, 0)
                except ReplyLost as exc:
                    self.mode.lose(connection, exc)
                    return 0
        if sent < PyBytes_GET_SIZE(reply):
            self.mode.send(where, reply, sent)
        return 0

    def converse(self, Event event not None, bytes frame not None):
        """Send a PDK call and let other greenlets run until its answer is there."""
        return self.do_converse(event, frame)

    cdef Request do_converse(self, Event event, bytes frame):
        cdef Connection connection
        cdef Py_ssize_t sent = 0
        cdef Request step
        if self.ident() != self.thread:
            raise PDKException(_wire.FOREIGN_THREAD)
        if type(event.connection) is Connection:
            connection = <Connection>event.connection
            if not (connection.stuck or connection.opening or connection.borrowed):
                try:
                    sent = connection.do_send_nowait(frame, 0)
                except ReplyLost as exc:
                    event.mode.lose(connection, exc)
                    event.mode.abandon(event, f"Kong is gone: {exc}")
        if sent < PyBytes_GET_SIZE(frame):
            event.mode.send_rest(event, frame, sent)
        event.sleeper = self.current()
        event.waiting_since = event.events.ticks
        event.events.waiting[event.id] = event
        interrupt = None
        while True:
            try:
                step = self.switch()
                break
            except BaseException as exc:
                # A gevent.Timeout of the plugin's, say. Kong is still going to answer, and no other
                # call can be made before: it takes effect then.
                interrupt = interrupt or exc
        if step is None:
            event.mode.end_given_up(event)
        if interrupt is not None:
            raise interrupt
        return step


cdef class BaseInstance:
    """What the dispatcher knows of an instance: its handlers, and how it is used."""

    cdef public dict handlers
    cdef public long used
    cdef public bint closing
    cdef public bint closed
    cdef public dict rows
    cdef readonly long running

    def __init__(self, dict handlers not None, bint closed=False, dict rows=None):
        self.handlers = handlers
        self.closed = closed
        self.rows = rows


@cython.final
cdef class Tally:
    """Counts events in rows of unsigned 64-bit numbers, which other processes may read meanwhile."""

    # The GIL is held wherever something is counted: so each of these is one step for all threads.
    cdef Py_buffer view
    cdef uint64_t *numbers
    cdef Py_ssize_t size

    def __cinit__(self):
        self.numbers = NULL

    def __init__(self, memory):
        self.release()
        PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
        if self.view.len % 8 or <size_t>self.view.buf % 8:
            PyBuffer_Release(&self.view)
            raise ValueError("a tally needs memory of whole numbers of 8 bytes")
        self.numbers = <uint64_t *>self.view.buf
        self.size = self.view.len // 8

    def __dealloc__(self):
        self.release()

    cdef void release(self):
        if self.numbers != NULL:
            self.numbers = NULL
            self.size = 0
            PyBuffer_Release(&self.view)

    def begin(self, Py_ssize_t row):
        """Count an event that begins."""
        self.do_begin(row)

    def end(self, Py_ssize_t row, double seconds, long calls, bint failed, bint abandoned):
        """Count an event that has ended."""
        self.do_end(row, seconds, calls, failed, abandoned)

    def add(self, Py_ssize_t place, uint64_t number):
        """Count up one of the numbers."""
        if not 0 <= place < self.size:
            raise IndexError("no such number in the tally")
        self.numbers[place] += number

    cdef inline uint64_t *row_at(self, Py_ssize_t row) except NULL:
        if not 0 <= row <= self.size - COLUMNS:
            raise IndexError("no such row in the tally")
        return self.numbers + row

    cdef inline int do_begin(self, Py_ssize_t row) except -1:
        self.row_at(row)[STARTED] += 1
        return 0

    cdef inline int do_end(
        self, Py_ssize_t row, double seconds, long calls, bint failed, bint abandoned
    ) except -1:
        cdef uint64_t *numbers = self.row_at(row)
        cdef int bucket = 0
        if not seconds > 0.0:
            seconds = 0.0
        while bucket < BOUNDS and seconds > ENDS[bucket]:
            bucket += 1
        numbers[BUCKETS + bucket] += 1
        numbers[NANOSECONDS] += <uint64_t>((seconds if seconds < LONGEST else LONGEST) * 1e9)
        numbers[CALLS] += calls
        numbers[ERRORS] += failed
        numbers[ABANDONED] += abandoned
        return 0


cdef class Dispatcher:
    """Runs the handlers of events."""

    cdef Events events
    cdef dict instances
    cdef object root
    cdef object find
    cdef object refuse
    cdef object fail
    cdef object left
    cdef object observer
    cdef Tally tally

    def __init__(
        self, Events events not None, dict instances not None, root, find, refuse, fail, left,
        Tally tally=None, observer=None,
    ):
        self.tally = tally
        self.observer = observer
        self.events = events
        self.instances = instances
        self.root = root
        self.find = find
        self.refuse = refuse
        self.fail = fail
        self.left = left

    def run(self, Request request not None, connection, mode, runner):
        """Run the handler of an event from its beginning to its end."""
        cdef Event event
        cdef BaseInstance instance
        cdef object handler = None
        cdef object failure = None
        cdef object result
        cdef object place = None
        cdef Py_ssize_t row = -1
        cdef bint observed = False
        cdef bint failed
        cdef double taken
        instance = self.instances.get(request.target)
        if instance is None:
            try:
                instance = self.find(request.target)
            except Exception as exc:
                return self.refuse(request, exc), None
        if instance is not None:
            handler = instance.handlers.get(request.value)
        if handler is None:
            return self.refuse(request, instance), None
        if self.tally is not None and instance.rows is not None:
            place = instance.rows.get(request.value)
        event = Event.__new__(Event)
        event.begin(
            self.events, instance, request.value, connection, request.msgid, mode, runner,
            instance.closed and request.value in CLOSABLE,
        )
        event.began = event.at = request.at
        instance.running += 1
        try:
            # Looked at after that: whoever closes it looks at both in the opposite order.
            if instance.closing:
                return self.refuse(request, None), None
            if place is not None:
                self.tally.do_begin(place)
                row = place
            if self.events.running is not None:
                self.events.running[event.id] = event
                if isinstance(runner, Switch):
                    event.greenlet = (<Switch>runner).current()
            try:
                if self.observer is not None:
                    observed = True
                    self.observer.begin(event)
                result = handler(self.root(event))
                if result is not None:
                    _wire.check_result(result)
                if event.expired and not event.over:  # it has caught that, or a thread of its own
                    raise HandlerTimeout(_wire.EXPIRED)
            except HandlerTimeout as exc:
                failure = self.fail(event, exc)
            except HandlerExit as exc:
                if not event.over:  # the end of another event, from something that they share
                    failure = self.fail(event, exc)
            except BaseException as exc:  # sys.exit() in it must not end the server's thread
                failure = self.fail(event, exc)
            if not event.end():
                return b"", event
            if kp_now() - event.at > self.events.late:
                mode.drop_late(event)
                return b"", event
            if failure is None:
                return encode_return(event.msgid, event.id), event
            return encode_error(event.msgid, failure), event
        finally:
            if self.events.running is not None:
                self.events.running.pop(event.id, None)
            instance.running -= 1
            if row >= 0 or observed:
                failed = failure is not None or event.expired
                taken = kp_exact() - event.began
                if row >= 0:
                    self.tally.do_end(row, taken, event.calls, failed, event.abandoned)
                if observed:
                    self.observer.end(event, taken, failed)
            instance.used = self.events.ticks
            if instance.closing and not instance.running:
                self.left(instance)
