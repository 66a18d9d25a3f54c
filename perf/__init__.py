"""The measurement itself: no sockets, no sleeping, no reading of clocks inside (except process.py)."""

__version__ = "0.1.0.dev0"
