"""RESP requests out of a stream of bytes: what a server reads.

`StrictParser` says byte by byte what a request is; `RequestParser` says the same, faster. Neither does I/O, reads a
clock, or takes memory on the word of a length: what they hold is at most what they were fed of one request.

    *<count>\\r\\n  then count times  $<length>\\r\\n<bytes>\\r\\n     a request; *0 and *-1 are skipped
    word word "quoted \\x00 word"\\n                              an inline request, for people; empty ones are skipped

The framing is that of the Redis protocol, stricter in three places: numbers are written as a program would print them
(no sign, no leading zeros), the two bytes after a bulk string must be CR LF, and an inline line must begin with a
letter, a digit, a quote or white space.
"""

from truba.protocols.resp.fast import RequestParser
from truba.protocols.resp.strict import FramingLost, Limits, StrictParser

__all__ = ["FramingLost", "Limits", "RequestParser", "StrictParser"]
