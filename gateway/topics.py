"""What can be watched, and which changes belong to it.

A task by its id, a queue by tenant and name (it need not exist yet), or all tasks that carry some labels.
Labels are looked up by one pair of each topic, so that a change costs a look-up a label that it carries, however many
topics there are, and nothing while nobody watches by labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import orjson

from actors.core.events import Change


@dataclass(frozen=True, slots=True)
class Labelled:
    """Tasks of a tenant that carry all of these labels; of one queue, or of any."""

    tenant: str
    queue: str | None
    labels: tuple[tuple[str, str], ...]
    """At least one, sorted by name."""

    @property
    def text(self) -> str:
        """The labels as a JSON object."""
        return orjson.dumps(dict(self.labels)).decode()

    def has(self, queue: str, labels: Mapping[str, str]) -> bool:
        """True for a task of the tenant in this queue and with these labels."""
        return self.queue in (None, queue) and all(labels.get(name) == value for name, value in self.labels)


Item = TypeVar("Item")
Topic = str | tuple[str, str] | Labelled


def concerns(topic: Topic, change: Change) -> bool:
    """True when the change is of a task of this topic."""
    queue = change.queue
    if isinstance(topic, str):
        return topic == change.id
    if isinstance(topic, tuple):
        return topic == (queue.tenant, queue.name)
    return topic.tenant == queue.tenant and change.labels is not None and topic.has(queue.name, _labels(change.labels))


class LabelIndex(Generic[Item]):
    """Items by topics of labels."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], list[tuple[Labelled, Item]]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def items(self) -> list[Item]:
        """All of them."""
        return [item for entries in self._found.values() for _, item in entries]

    def add(self, topic: Labelled, item: Item) -> None:
        """From now on `find` answers this item for what has the labels of `topic`."""
        self._found.setdefault(_place(topic), []).append((topic, item))

    def remove(self, topic: Labelled, item: Item) -> None:
        """Undo `add`; harmless when it is not there."""
        place = _place(topic)
        left = [entry for entry in self._found.get(place, ()) if entry[0] != topic or entry[1] is not item]
        if left:
            self._found[place] = left
        else:
            self._found.pop(place, None)

    def find(self, change: Change) -> list[Item]:
        """The items that this change concerns, each as often as it was added."""
        if change.labels is None:
            return []
        tenant, queue, labels = change.queue.tenant, change.queue.name, _labels(change.labels)
        entries = (entry for pair in labels.items() for entry in self._found.get((tenant, *pair), ()))
        return [item for topic, item in entries if topic.has(queue, labels)]


def _place(topic: Labelled) -> tuple[str, str, str]:
    return (topic.tenant, *topic.labels[0])


def _labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = orjson.loads(text)
    return labels
