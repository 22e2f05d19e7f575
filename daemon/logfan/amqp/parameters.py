"""An AMQP URL into pika's connection parameters."""

import socket

import pika

from logfan import __version__
from logfan.config import amqp_url
from logfan.config.settings import TlsSettings
from logfan.runtime.tls import client_context

_CONNECT_SECONDS = 10.0

HANDSHAKE_SECONDS = 15.0


def parameters(
    url: str, *, heartbeat: float, tls: TlsSettings, instance: str
) -> pika.connection.Parameters:
    """pika's parameters for one URL. `heartbeat` in seconds.

    Raises TlsFileError, an OSError, where a TLS file cannot be used.
    """
    # Not by pika's own reading of URLs, whose messages about a wrong one quote it.
    address = amqp_url.parse(url)
    result = pika.ConnectionParameters(
        host=address.host, port=address.port, virtual_host=address.vhost,
        heartbeat=max(1, round(heartbeat)), connection_attempts=1,
        socket_timeout=_CONNECT_SECONDS, stack_timeout=HANDSHAKE_SECONDS,
    )  # fmt: skip
    result.client_properties = {
        "product": "logfan",
        "version": __version__,
        "connection_name": f"logfan {instance}@{socket.gethostname()}".replace(" @", "@"),
    }
    if address.user is not None and address.password is not None:
        result.credentials = pika.PlainCredentials(address.user, address.password)
    if address.tls:
        context = client_context(tls.ca_file, tls.cert_file, tls.key_file, verify=tls.verify)
        result.ssl_options = pika.SSLOptions(context, address.host)
        if tls.cert_file is not None and address.user is None:
            result.credentials = pika.credentials.ExternalCredentials()
    return result
