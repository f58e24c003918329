"""Forward passes that record or replace activations."""
