"""Clock, back-off, TLS, a GET, systemd, allocator, foreign text. Imports nothing else of logfan."""
