"""Clock, back-off, TLS, a GET, files, systemd, allocator, foreign text. Imports nothing of logfan."""
