"""Read and write model formats."""
