"""A server that speaks Loki's push protocol, and keeps each push in a file before it answers.

`python loki_server.py PORT FILE`; it needs the standard library alone. While there is a file
`FILE.pace` it answers 429, and what that holds is its Retry-After.
"""

import os
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main(port: int, pushes: Path) -> None:
    """Serve until killed."""
    kept = os.open(pushes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with suppress(FileNotFoundError):
                pace = pushes.with_name(f"{pushes.name}.pace").read_text()
                self.send_response(429)
                self.send_header("Retry-After", pace)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            os.write(kept, b"\n" + body + b"\n")
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
