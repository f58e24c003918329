"""Train a slice of a model, or low-rank factors beside its maps."""
