"""Settings: one TOML file, read, merged, checked; nothing here talks to a daemon."""
