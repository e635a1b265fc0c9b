"""Thumbnails: many small jobs for a pool of workers, submitted in one stream; what each returns is its task's result.

ringwheel-worker thumbnails:app --concurrency 8
"""

from collections.abc import Iterable
from pathlib import Path

from ringwheel import Client, Context, Discard, Submitted, Worker

client = Client()
app = Worker(client, "thumbnails", concurrency=8)


@app.task
def shrink(task: Context, picture: str, width: int = 64) -> dict[str, int]:
    """A plain function runs in a thread. The pictures are grey ones (PGM)."""
    source = Path(picture)
    if not source.exists():
        raise Discard(f"there is no {source.name}")  # another attempt won't find it either
    head, pixels = source.read_bytes().split(b"\n255\n", 1)
    columns, rows = map(int, head.split()[1:])
    step = max(1, columns // width)
    lines = []
    for row in range(0, rows, step):
        if task.cancelled.is_set():  # nobody wants it any more
            return {}
        lines.append(pixels[row * columns : (row + 1) * columns : step])
    small = b"P5\n%d %d\n255\n" % (len(lines[0]), len(lines))
    source.with_suffix(".small.pgm").write_bytes(small + b"".join(lines))
    return {"columns": len(lines[0]), "rows": len(lines)}


async def shrink_all(pictures: Iterable[Path], width: int) -> Submitted:
    """Any number of pictures, a thousand a request."""
    return await client.submit_many(shrink.draft(str(picture), width) for picture in pictures)
