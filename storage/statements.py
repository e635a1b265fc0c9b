"""SQL by name: reads `sql/<room>.sql`, where a line `-- name: <statement>` starts each statement.

Comments stay in the text: whoever looks at pg_stat_activity sees which statement of ringwheel it is.
"""

from pathlib import Path

_FOLDER = Path(__file__).with_name("sql")
_MARK = "-- name: "


def statements(room: str) -> dict[str, str]:
    """The statements of `sql/<room>.sql` by name."""
    text = (_FOLDER / f"{room}.sql").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for part in text.split("\n" + _MARK)[1:]:
        name, _, _ = part.partition("\n")
        found[name.strip()] = f"/* ringwheel {room}.{name.strip()} */ " + _bare(part.partition("\n")[2])
    return found


def _bare(text: str) -> str:
    """The statement without its comment lines and trailing semicolon."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("--")]
    return "\n".join(lines).rstrip().rstrip(";")
