"""PostgreSQL: the only room that knows SQL and asyncpg. Implements the ports that actors define."""
