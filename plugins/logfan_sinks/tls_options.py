"""`tls` of a sink that connects by TLS."""

import ssl
from pathlib import Path

import logfan


class TlsOptions(logfan.SinkConfig):
    """Which server to trust, and who this client is."""

    ca_file: Path | None = None
    """The authorities that the server's certificate must come from; the system's unless given."""
    cert_file: Path | None = None
    """The certificate of this client."""
    key_file: Path | None = None
    """Its key."""
    verify: bool = True
    """false: take any certificate, so that whoever is in between can read all of it."""

    def context(self) -> ssl.SSLContext:
        """Raises OSError (ssl.SSLError among them) where a file cannot be read, or is none."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
