"""Floor 6: a run folder, recipes, search, planting."""

from .knockout import silenced
from .plant import Planted, Teaching, plant
from .recipe import Recipe
from .run import Run, run
from .search import Point, Search, search

__all__ = ["Planted", "Point", "Recipe", "Run", "Search", "Teaching", "plant", "run", "search", "silenced"]
