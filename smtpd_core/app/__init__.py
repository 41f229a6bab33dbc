"""Composition: settings, processes, command line."""
