"""The testing kit: a server for integration tests."""
