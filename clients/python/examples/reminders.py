"""Reminder e-mails: one at a moment of the user's choice, called off when it is no longer wanted.

ringwheel-worker reminders:app
"""

from datetime import datetime

from ringwheel import Client, Context, Snooze, Task, Worker

client = Client()
app = Worker(client, "reminders", concurrency=20)
outbox: list[str] = []
"""Stands for a mail server."""
busy: set[str] = set()


@app.task
async def remind(task: Context, address: str, text: str) -> str:
    """Send the mail. A provider that is busy is asked again later, and that counts as no attempt."""
    if address in busy:
        raise Snooze(30)
    outbox.append(f"{address}: {text}")
    return task.fence


async def remind_at(when: datetime, address: str, text: str) -> Task:
    """The reminder of an address and a moment is one, however often it is asked for."""
    return await client.submit(remind.draft(address, text), at=when, key=f"reminder/{address}/{when.isoformat()}")


async def call_off(reminder: Task) -> None:
    """Conflict, if it was sent already."""
    await client.cancel(reminder.id)
