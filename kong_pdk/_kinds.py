"""Kinds of arguments and results: what the codecs' ``Function`` and the PDK's table share."""

from __future__ import annotations

# Types of arguments, as bits of what a parameter takes as it is. What has another type, or is out
# of bounds, is left to ``pdk/checks.py``, which converts it or says what is wrong.
STR, BYTES, INT, FLOAT, BOOL, NONE, DICT, LIST, OTHER = (1 << bit for bit in range(9))
NUMBER = INT | FLOAT
SCALAR = STR | BYTES | NUMBER | BOOL
ANY = (OTHER << 1) - 1
TYPE_BITS: dict[type, int] = {
    str: STR, bytes: BYTES, int: INT, float: FLOAT, bool: BOOL, type(None): NONE, dict: DICT,
    list: LIST,
}  # fmt: skip

#: Most parameters of a function, but for one that takes any number.
MAX_PARAMETERS = 8

# What the containers of an argument may hold.
HEADER_VALUES = 1  # a list of strings
HEADERS = 2  # a dict of strings to scalars or such lists
QUERY = 3  # a dict of strings to scalars or lists of strings and booleans

# Tables that a function returns. Lua has one kind of table, so an empty map arrives as a list.
AS_IT_IS = 0
MAP = 1
ARRAY = 2
RECORD = 3  # a map whose members are looked at too
RAW = 4  # no table, but bytes; Kong 2.8 sends them as a string

#: Level of a log line that is never dropped: that of debug, the last one.
ALL_LEVELS = 7
