"""Clock, back-off, TLS, a GET, files, systemd, allocator, foreign text. Imports none of ours."""
