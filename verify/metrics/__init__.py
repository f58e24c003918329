"""The field's metrics, as plain functions of numbers and tensors."""
