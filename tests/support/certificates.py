"""Certificates for tests: an authority, and files that a node is given."""

from pathlib import Path
from typing import Any

import trustme


def issue(authority: trustme.CA, folder: Path, name: str = "node") -> dict[str, Any]:
    """What `serve` is told: a certificate of 127.0.0.1, its key, and who signed it."""
    paths = {key: folder / f"{name}-{key}.pem" for key in ("certificate", "key", "authorities")}
    leaf = authority.issue_cert("127.0.0.1")
    leaf.cert_chain_pems[0].write_to_path(str(paths["certificate"]))
    leaf.private_key_pem.write_to_path(str(paths["key"]))
    authority.cert_pem.write_to_path(str(paths["authorities"]))
    return {f"tls_{key}": path for key, path in paths.items()}
