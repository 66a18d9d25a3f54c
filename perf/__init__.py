"""The measurement itself: no sockets, no sleeping, no reading of clocks inside."""
