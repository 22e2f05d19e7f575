"""TLS on a private RabbitMQ node, with client certificates."""

from pathlib import Path
from typing import Self

from logfan.testing.node import RabbitNode, free_port
from support.broker import add_user, delete_user
from support.certificates import Authority, Pair

PLUGIN = "rabbitmq_auth_mechanism_ssl"
"""What the node needs to take certificates as logins."""
_USER = "logfan"
_SET_MECHANISMS = (
    "{ok, Now} = application:get_env(rabbit, auth_mechanisms), "
    "application:set_env(rabbit, auth_mechanisms, %s)"
)


class TlsNode:
    """The node with two more listeners, a CA, and a certificate, which can be changed meanwhile.

    `port` wants a client certificate, `open_port` asks for none, and `node.port` is without TLS.
    The user `logfan` may log in with a certificate of that name. The listeners stay; what they
    serve with goes with the folder.
    """

    def __init__(self, node: RabbitNode, folder: Path) -> None:
        self.node = node
        self.authority = Authority(folder)
        self.client = self.authority.issue("client", _USER, common_name=_USER)
        self._server = self._serve_for("localhost", "127.0.0.1")
        self.port, self.open_port = free_port(), free_port()

    def __enter__(self) -> Self:
        server = self._server
        files = (
            f'{{cacertfile, "{self.authority.file}"}}, '
            f'{{certfile, "{server.cert}"}}, {{keyfile, "{server.key}"}}'
        )
        ways = {
            self.port: "{verify, verify_peer}, {fail_if_no_peer_cert, true}",
            self.open_port: "{verify, verify_none}",
        }
        listeners = [
            f'rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, [{files}, {way}], 1)'
            for port, way in ways.items()
        ]
        settings = (
            "application:set_env(rabbit, ssl_cert_login_from, common_name)",
            # A login by certificate looks here, not at what its listener verifies.
            "application:set_env(rabbit, ssl_options, [{verify, verify_peer}])",
            _SET_MECHANISMS % "['EXTERNAL' | Now]",
        )
        self.node.eval(", ".join((*settings, *listeners)))
        add_user(self.node, _USER)
        return self

    def __exit__(self, *_: object) -> None:
        delete_user(self.node, _USER)
        self.node.eval(_SET_MECHANISMS % "lists:delete('EXTERNAL', Now)" + ".")

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
