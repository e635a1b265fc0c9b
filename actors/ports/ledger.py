"""Port: the ledger's statement, the only one that changes or deletes live rows.

Guarantees: all or nothing a call (Invalid excepted); a record is applied iff its shard is owned by `boot` under its
epoch at the commit, and the row has the expected `rev`. Take-over and hand-over wait for an open write and make later
ones refuse.
"""

from collections.abc import Sequence
from typing import Protocol

from actors.core.events import Record


class LedgerStore(Protocol):
    """Fenced group commit of results and commands."""

    async def write(self, boot: str, records: Sequence[Record]) -> set[str]:
        """Apply the records (an id at most once) in one commit; answers the ids of the refused ones.

        Raises Unavailable when the outcome is unknown: send the same records again, and look refusals up. Raises
        Invalid when some record is one that the tables do not take, in any form; the others may be committed or not.
        """
        ...
