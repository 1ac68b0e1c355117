"""The write-ahead log: what this server has promised, on disk. See FORMAT.md and ``wal.Wal``."""
