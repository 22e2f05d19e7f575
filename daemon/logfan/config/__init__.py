"""config.toml, environment variables and secret files into typed settings."""
