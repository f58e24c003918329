"""Floor 0: errors, files written whole, tables, caches, provenance."""
