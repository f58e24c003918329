"""What changes in a model: edits as values, apart from the weights, applied and taken off again."""
