"""What the daemon reports: metrics, HTTP endpoints, its log."""
