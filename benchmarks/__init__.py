"""Measurements: every number in the README comes from a command in here."""
