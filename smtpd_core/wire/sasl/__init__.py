"""SASL mechanisms as step functions (RFC 4422, RFC 4954). Standard library only."""
