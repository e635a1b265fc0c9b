"""A nightly report: each run asks for the next one, and a key a night makes sure that there is only one.

ringwheel-worker nightly:app
"""

from datetime import date, datetime, time, timedelta

from ringwheel import Client, Retry, RetryPolicy, Task, Worker

client = Client()
app = Worker(client, "reports", concurrency=2)
sales: dict[date, int] = {}
"""Stands for a database."""


@app.task
async def report(day: date) -> dict[str, int]:
    """The report of a day. Its figures may come late."""
    await plan(day + timedelta(days=1))  # first: whatever happens to this one, there is a next one
    if day not in sales:
        raise Retry("the figures are not there yet", after=600)
    return {"sales": sales[day]}


async def plan(day: date) -> Task:
    """At half past midnight, local time, when the day is over; asked for twice, it is the same task."""
    at = datetime.combine(day + timedelta(days=1), time(0, 30)).astimezone()
    retry = RetryPolicy(max_attempts=12, min_backoff=60)
    return await client.submit(report.draft(day), at=at, key=f"report/{day}", retry=retry)
