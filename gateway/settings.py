"""What a server process is told when it starts: one object for `serve`, one for `dev`.

Plain values with safe defaults. The command line reads flags and environment into them (`gateway/cli`); nothing else
in the service reads the environment. Imports nothing heavy: the command line loads this module before any work.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PORT = 7070
LOOPBACK = "127.0.0.1"
GRACE_S = 20.0


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """A node of a cluster, on a database that somebody else runs."""

    database_url: str
    """DSN of the primary."""
    bind: str = LOOPBACK
    """Address that it listens on."""
    port: int = PORT
    """0 = any free one."""
    advertise: str | None = None
    """`host:port` under which other nodes reach this one; None = as bound."""
    name: str | None = None
    """Stable name of the node, its place on the ring; None = from host name and port."""
    grace_s: float = GRACE_S
    """How long running attempts may take to end after the signal to stop."""
    tls_certificate: Path | None = None
    """Its own, with its chain (PEM): it speaks TLS alone, to clients and other nodes."""
    tls_key: Path | None = None
    tls_authorities: Path | None = None
    """Who signs the certificates of other nodes; None = whom the system trusts."""
    allow_targets: tuple[str, ...] = ()
    """Networks (CIDR) that webhooks may reach although they are private, loopback or link-local."""
    tenant_rate_hz: float | None = None
    """Tasks a second that a tenant may submit to this node; None = no limit."""
    tenant_rates_hz: Mapping[str, float] = field(default_factory=dict)
    """The same by tenant."""
    attached: bool = False
    """End when standard input does: whoever holds its other end has gone, or wants it to."""

    @property
    def url(self) -> str:
        """Where it listens, unless its port is any free one."""
        return f"http://{self.bind}:{self.port}"


@dataclass(frozen=True, slots=True)
class DevSettings:
    """A node of its own, or a few, on an embedded PostgreSQL, for a developer's machine."""

    data: Path
    """Folder of the embedded database; made when missing."""
    bind: str = LOOPBACK
    port: int = PORT
    nodes: int = 1
    """Processes: this one, and others on the ports after its own."""
    demo: bool = True
    """Submit a little traffic of its own, to have something to look at; its webhook target is there anyway."""
    grace_s: float = 5.0
    allow_targets: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """A developer's targets run on the same machine."""
    attached: bool = False
    """End when standard input does, as a node does."""

    def serve(self, database_url: str, port: int | None = None) -> ServeSettings:
        """The same node, or one on another port, once its database runs at `database_url`."""
        return ServeSettings(
            database_url=database_url,
            bind=self.bind,
            port=self.port if port is None else port,
            grace_s=self.grace_s,
            allow_targets=self.allow_targets,
            attached=self.attached,
        )
