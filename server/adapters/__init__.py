"""What stands behind the ports: SQLite, memory, chDB."""
