"""What schemathesis is told beyond the document: which valid requests may be refused, and how a batch refuses."""

from typing import Any

import schemathesis
from schemathesis import CheckContext
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection

IN_WORDS = (
    "/cursor",
    "/idempotency_key",
    "/schedule_time",
    "/delay",
    "/ttl",
    "/dispatch_deadline",
    "/retry/",
    "/retry",
    "/payload_base64",
    "/http/",
    "/retention/",
    "/priority",
    "/by",
    "/max",
)
"""Where the document says in words what no schema can: a calendar, a sum, base64, reserved headers, two keys, bounds of
durations as text, and that 3.0, which JSON Schema calls an integer, is not taken for one.
"""
ANY_FIELD = ("not-supported", "key-reused")
"""Problems that a valid request may have all the same."""
BATCHES = ("createTasks", "completeTasks", "extendLeases")
"""A bad item has a problem in its place."""
SOCKETS = ("stream", "worker")


@schemathesis.check
def what_the_document_allows_is_taken(ctx: CheckContext, response: Any, case: Any) -> bool | None:
    """A request that fits the document is not refused, but for what is told in words."""
    if _mode(case) is not GenerationMode.POSITIVE or response.status_code not in (400, 413, 415, 422):
        return None
    problem = response.json()
    if case.operation.definition.raw["operationId"] in SOCKETS or problem["type"] in ANY_FIELD:
        return None
    pointers = [error["pointer"] for error in problem["errors"]]
    assert pointers, f"refused without saying where: {problem}"
    assert all(pointer.startswith(IN_WORDS) for pointer in pointers), f"refused: {problem}"
    return None


@schemathesis.check
def what_it_does_not_allow_is_refused(ctx: CheckContext, response: Any, case: Any) -> bool | None:
    """A request that does not fit the document is refused: a batch by a problem in the place of an item at least."""
    if case.operation.definition.raw["operationId"] not in BATCHES or response.status_code != 200:
        return negative_data_rejection(ctx, response, case)
    refused = any("problem" in item for item in response.json()["results"])
    assert refused or _mode(case) is not GenerationMode.NEGATIVE, "a batch that does not fit was taken whole"
    return None


def _mode(case: Any) -> GenerationMode | None:
    return case.meta.generation.mode if case.meta is not None else None
