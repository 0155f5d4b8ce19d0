"""Sockets and processes: listening, the loop, and the life of the server."""
