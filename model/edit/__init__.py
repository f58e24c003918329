"""What changes in a model, kept apart from it, put in place and taken off again."""
