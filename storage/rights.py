"""What the database role of a process must be allowed to do: own ringwheel's tables and make new ones beside them.

A node makes and drops the partitions of its history, which only an owner may. Refuses (Misconfigured) a role that may
not, in words that name the role that owns the tables or the GRANT that is missing.
"""

from actors.core.errors import Misconfigured
from storage.sessions import Connection

_RIGHTS = """
SELECT quote_ident(current_user) AS role,
       quote_ident(current_schema()) AS schema,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS makes,
       (SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = to_regclass('cluster')) AS owner,
       (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('cluster')) AS owns
"""


async def check_rights(connection: Connection) -> None:
    """Raise Misconfigured when this role can't own and make what a node needs."""
    words = await _missing(connection)
    if words is not None:
        raise Misconfigured(words)


async def refused(connection: Connection, error: Exception) -> Misconfigured:
    """Why the server refused something to this role."""
    return Misconfigured(await _missing(connection) or f"the database refuses it to this role: {error}")


async def _missing(connection: Connection) -> str | None:
    rights = await connection.fetchrow(_RIGHTS)
    role, schema, owner = rights["role"], rights["schema"], rights["owner"]
    if owner is not None and not rights["owns"]:
        belong = f"ringwheel's tables belong to the role {owner}, not to {role}"
        return f"{belong}: use {owner}, or run GRANT {owner} TO {role}"
    if schema is None:
        return f"the role {role} may use no schema: run GRANT USAGE, CREATE ON SCHEMA public TO {role}"
    if not rights["makes"]:
        return f"the role {role} may make no tables: run GRANT CREATE ON SCHEMA {schema} TO {role}"
    return None
