"""A process that uses an embedded server: says what happens on stdout, leaves when stdin ends.

ready <milliseconds since entering>
error <class> <message>
flushed <n>             a statement went through although the process has been told to stop
"""

import asyncio
import sys
import time
from pathlib import Path

import asyncpg

from actors.core.errors import RingwheelError
from storage.embedded import EmbeddedPostgres


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def flush(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS flushed (n int)")
        await connection.execute("INSERT INTO flushed VALUES (1)")
        return int(await connection.fetchval("SELECT count(*) FROM flushed"))
    finally:
        await connection.close()


async def use(data: Path) -> None:
    began = time.monotonic()
    async with EmbeddedPostgres(data) as server, asyncio.TaskGroup() as group:
        keeping = group.create_task(server.run())
        say(f"ready {(time.monotonic() - began) * 1000:.0f}")
        try:
            await asyncio.to_thread(sys.stdin.read)
        except asyncio.CancelledError:
            say(f"flushed {await flush(server.dsn)}")
            raise
        keeping.cancel()


def main() -> None:
    try:
        asyncio.run(use(Path(sys.argv[1])))
    except RingwheelError as error:
        say(f"error {type(error).__name__} {error}")


if __name__ == "__main__":
    main()
