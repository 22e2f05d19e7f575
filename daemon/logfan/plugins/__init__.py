"""Finds and validates sink plugins."""
