"""Delivery agents: one file per way out."""
