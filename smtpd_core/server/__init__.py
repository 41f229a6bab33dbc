"""The embeddable server."""
