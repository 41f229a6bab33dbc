"""Keys, certificates and TLS streams."""
