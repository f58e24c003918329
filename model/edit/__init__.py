"""Edits of a model as values that are kept apart from its weights, applied and removed."""
