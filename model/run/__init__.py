"""Forward passes with something read or replaced."""
