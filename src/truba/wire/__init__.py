"""The server's end of a RESP connection, whichever side dialled it."""
