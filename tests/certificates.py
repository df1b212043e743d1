"""Certificates for tests of TLS, made with openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from native_brokers.software import OPENSSL

__all__ = ["make_certificates"]


def make_certificates(folder: Path, names: str) -> Path:
    """Two authorities, ``authority`` and ``stranger``, and a ``server`` of the first for ``names``.

    ``names`` is a subjectAltName such as ``DNS:broker.test``. Returns ``folder``, where anybody
    may read the ``.pem`` and ``.key`` files.
    """
    for authority in ("authority", "stranger"):
        subject = ["-subj", f"/CN={authority}", "-days", "2", "-nodes"]
        new_key = ["-newkey", "rsa:2048", "-keyout", f"{authority}.key", "-out", f"{authority}.pem"]
        _openssl(folder, "req", "-x509", *subject, *new_key)
    request = ["-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr"]
    _openssl(folder, "req", *request, "-subj", "/CN=broker.test")
    (folder / "names").write_text(f"subjectAltName = {names}\n")
    signing = ["-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial"]
    extensions = ["-extfile", "names", "-days", "2", "-out", "server.pem"]
    _openssl(folder, "x509", "-req", "-in", "server.csr", *signing, *extensions)
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


def _openssl(folder: Path, *arguments: str) -> None:
    OPENSSL.install()
    subprocess.run([OPENSSL.path(), *arguments], cwd=folder, check=True, capture_output=True)
