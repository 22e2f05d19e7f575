"""A private CA and what it signs, as files; made anew for each test run by `trustme`."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path

    @property
    def toml(self) -> str:
        """As keys of a `tls` table."""
        return f'cert_file = "{self.cert}"\nkey_file = "{self.key}"\n'


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(
        self,
        name: str,
        *identities: str,
        common_name: str | None = None,
        valid_from_day: int = -1,
        valid_to_day: int = 30,
        chain: str = "direct",
    ) -> Pair:
        """A pair in files called `name`; an earlier one of that name is replaced. Days from now.

        `chain`: `direct`, `whole` with an intermediate CA, or `torn`, where that is left out.
        """
        now = datetime.now(UTC)
        signer = self._ca if chain == "direct" else self._ca.create_child_ca()
        issued = signer.issue_cert(
            *identities, common_name=common_name,
            not_before=now + timedelta(days=valid_from_day),
            not_after=now + timedelta(days=valid_to_day),
        )  # fmt: skip
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pems = issued.cert_chain_pems[: 1 if chain == "torn" else None]
        pair.cert.write_bytes(b"".join(pem.bytes() for pem in pems))
        pair.key.write_bytes(issued.private_key_pem.bytes())
        pair.key.chmod(0o600)
        return pair


def server_context(folder: Path) -> ssl.SSLContext:
    """For a server at 127.0.0.1; the file `ca.pem` in the folder is the CA to trust."""
    pair = Authority(folder).issue("server", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context


def encrypted(key: Path, passphrase: str) -> Path:
    """The key, encrypted, in a file beside it."""
    loaded = load_pem_private_key(key.read_bytes(), None)
    result = key.with_suffix(".encrypted.key")
    result.write_bytes(
        loaded.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode())
        )
    )
    result.chmod(0o600)
    return result
