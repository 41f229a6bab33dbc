"""Shapes of other servers' programming interfaces, on this engine."""
