"""Floor 0: errors, files written whole, tables, provenance."""
