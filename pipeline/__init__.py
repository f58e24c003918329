"""Floor 6: a run folder, recipes, search, planting, workers."""

from .knockout import knockout
from .plant import Invention, Planted, plant
from .recipe import Recipe
from .run import Run, run
from .search import Point, Search, search
from .tasks import Pool, Workers
from .teaching import Teaching

__all__ = [
    "Invention",
    "Planted",
    "Point",
    "Pool",
    "Recipe",
    "Run",
    "Search",
    "Teaching",
    "Workers",
    "knockout",
    "plant",
    "run",
    "search",
]
