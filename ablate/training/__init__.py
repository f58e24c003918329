"""What the trained edits share: batches, loop, early stopping, simulated relearning."""
