"""For people who write a store or a connector: the suites that every adapter keeps to, and a store in memory.

Nothing here is imported by the server.
"""
