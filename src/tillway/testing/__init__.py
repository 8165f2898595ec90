"""Suites that every adapter must pass, and a store in memory, for authors of stores and connectors.

The server imports nothing from here.
"""
