"""The field's measures as plain functions over numbers and tensors."""
