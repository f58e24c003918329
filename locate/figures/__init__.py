"""Draw scores, as matplotlib figures and as HTML. Every function takes plain data: frames, grids and wirings."""
