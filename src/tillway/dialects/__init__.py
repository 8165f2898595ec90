"""The HTTP contracts of the source systems.

Each file translates one contract to the engine's operations and back; no rule of money lives here.
"""
