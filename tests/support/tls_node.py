"""A private RabbitMQ node that listens with TLS and asks for client certificates."""

from pathlib import Path
from typing import Self

from logfan.testing.node import RabbitNode, free_port
from support.certificates import Authority, Pair


class TlsNode:
    """The node, its CA, and its certificate, which can be changed while it runs.

    It has three listeners: `port` wants a client certificate, `open_port` asks for none, and
    `node.port` is without TLS. The user `logfan` may log in with a certificate of that name.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.client = self.authority.issue("client", "logfan", common_name="logfan")
        server = self._serve_for("localhost", "127.0.0.1")
        self.port, self.open_port = free_port(), free_port()
        self.node = RabbitNode(
            config=[
                f"listeners.ssl.1 = 127.0.0.1:{self.port}",
                f"ssl_options.cacertfile = {self.authority.file}",
                f"ssl_options.certfile = {server.cert}",
                f"ssl_options.keyfile = {server.key}",
                "ssl_options.verify = verify_peer",
                "ssl_options.fail_if_no_peer_cert = true",
                "auth_mechanisms.1 = EXTERNAL",
                "auth_mechanisms.2 = PLAIN",
                "ssl_cert_login_from = common_name",
            ],
            plugins=["rabbitmq_auth_mechanism_ssl"],
        )

    def __enter__(self) -> Self:
        self.node.__enter__()
        # As the plain way in of a listener that is open to those without certificates.
        self.node.eval(
            "{ok, Given} = application:get_env(rabbit, ssl_options),"
            "Open = [{verify, verify_none} | proplists:delete(fail_if_no_peer_cert,"
            " proplists:delete(verify, Given))],"
            f'rabbit_networking:start_ssl_listener({{"127.0.0.1", {self.open_port}}}, Open, 1),'
            'rabbit_auth_backend_internal:add_user(<<"logfan">>, <<"none">>, <<"test">>),'
            'rabbit_auth_backend_internal:set_permissions('
            '<<"logfan">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).',
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.node.close()

    def show(
        self, *identities: str, valid_from_day: int = -1, valid_to_day: int = 30,
        chain: str = "direct",
    ) -> None:  # fmt: skip
        """Serve with a certificate for these names from now on, at no restart."""
        self._serve_for(
            *identities, valid_from_day=valid_from_day, valid_to_day=valid_to_day, chain=chain
        )
        self.node.eval("ssl:clear_pem_cache().")

    def _serve_for(
        self, *identities: str, valid_from_day: int = -1, valid_to_day: int = 30,
        chain: str = "direct",
    ) -> Pair:  # fmt: skip
        return self.authority.issue(
            "server", *identities, valid_from_day=valid_from_day, valid_to_day=valid_to_day,
            chain=chain,
        )  # fmt: skip
