"""The protocol, pure: bytes in, events and bytes out. Standard library only; no sockets, users, files or policy."""
