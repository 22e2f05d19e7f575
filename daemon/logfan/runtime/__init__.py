"""Clock, back-off, TLS, systemd, allocator, foreign text. Imports nothing else of logfan."""
