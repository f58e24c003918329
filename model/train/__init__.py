"""Train slices of a model, or low-rank factors added to its maps."""
