"""truba: a write-ahead log grouped by session; unfinished sessions are handed to their handler."""

__version__ = "0.1.0"
