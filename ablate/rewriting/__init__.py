"""What ROME, MEMIT and LEACE share: closed forms, contexts, keys and values."""
