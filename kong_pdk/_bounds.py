"""Bounds of messages, for the codecs and the flags. Imports nothing: flags are read in haste."""

#: Default bound of one message, bytes. Bodies of 64 MiB are the largest that Kong is known to be
#: configured for; the double leaves room for the envelope and for maps around them.
MAX_MESSAGE = 128 * 1024 * 1024

#: Default bound of nesting. Kong's JSON decoder takes 1,000 levels from a client's body; a lower
#: bound would let that client cut the connection. msgpack itself ends at 1,024.
MAX_DEPTH = 1010
MAX_DEPTH_LIMIT = 1020
