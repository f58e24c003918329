"""Floor 6: a run folder, recipes, search, planting."""

from .knockout import knockout
from .plant import Invention, Planted, plant
from .recipe import Recipe
from .run import Run, run
from .search import Point, Search, search
from .teaching import Teaching

__all__ = ["Invention", "Planted", "Point", "Recipe", "Run", "Search", "Teaching", "knockout", "plant", "run", "search"]
