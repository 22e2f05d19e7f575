"""`tls` of a sink that connects by TLS."""

import ssl
from pathlib import Path

import logfan
from logfan_sinks.secret_file import must_be_readable


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

    def check_files(self) -> None:
        """Raises `logfan.SinkUnavailable`, which names the key and the file that cannot be read."""
        for key in ("ca_file", "cert_file", "key_file"):
            file: Path | None = getattr(self, key)
            if file is not None:
                must_be_readable(file, f"tls.{key}: ")

    def context(self) -> ssl.SSLContext:
        """Raises `logfan.SinkUnavailable`, which names the key and the file at fault."""
        self.check_files()
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except ssl.SSLError:
            why = f"tls.ca_file: {self.ca_file}: holds no certificate in PEM form"
            raise logfan.SinkUnavailable(why) from None
        if self.cert_file is not None:
            self._load(context, self.cert_file)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _load(self, context: ssl.SSLContext, cert_file: Path) -> None:
        """The certificate of this client, and its key."""
        is_encrypted = False

        def no_passphrase() -> bytes:
            # Without this, OpenSSL asks on the terminal, and waits there.
            nonlocal is_encrypted
            is_encrypted = True
            return b""

        try:
            context.load_cert_chain(cert_file, self.key_file, no_passphrase)
        except ssl.SSLError as error:
            key = "cert_file" if self.key_file is None else "key_file"
            file = self.key_file or cert_file
            why = f"cannot be used with {cert_file} ({error.reason or error.strerror})"
            if is_encrypted:
                why = (
                    "the key is encrypted, and no one can type a pass-phrase; store it decrypted, "
                    "readable by the service alone (openssl pkey -in FILE -out FILE)"
                )
            raise logfan.SinkUnavailable(f"tls.{key}: {file}: {why}") from None
