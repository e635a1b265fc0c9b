"""The whole service with everything real: PostgreSQL, sockets, processes."""
