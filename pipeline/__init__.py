"""Floor 6: a run folder, recipes, search, planting."""

from .knockout import knockout
from .plant import Planted, Teaching, plant
from .recipe import Recipe
from .run import Run, run
from .search import Point, Search, search

__all__ = ["Planted", "Point", "Recipe", "Run", "Search", "Teaching", "knockout", "plant", "run", "search"]
