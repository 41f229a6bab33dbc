"""A threaded SMTP server: embedded, as a daemon, or as a test fixture."""
