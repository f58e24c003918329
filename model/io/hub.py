"""Whether a model is on the hub, asked once, so that a mistyped name is refused at once."""

from __future__ import annotations

import difflib

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

from ..._util.errors import UserError

SECONDS = 5


def check_hub(name: str, default: str) -> None:
    """Refuse a hub id that is neither in the cache nor on the hub; transformers would ask again and again.

    Args:
        default: the name of the embedded model, for names that are almost it.

    Raises:
        UserError: no such model, or a hub that cannot be reached.
    """
    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return
        if not constants.HF_HUB_OFFLINE:
            HfApi().model_info(name, timeout=SECONDS)
            return
        why = "it is not in the hub's cache, and HF_HUB_OFFLINE is set"
    except HFValidationError:
        why = "it is not a hub id either"
    except RepositoryNotFoundError:
        why = "the hub has no such model"
    except Exception as error:  # every version of the hub's client has errors of its own for a broken network
        why = f"the hub cannot be asked ({' '.join(str(error).split())[:100] or type(error).__name__})"
    meant = f" Did you mean {default!r}?" if difflib.get_close_matches(name.lower(), [default], cutoff=0.7) else ""
    raise UserError(
        f"there is no model folder {name!r}, and {why}; give {default!r}, an existing folder, or a hub id you can "
        f"reach.{meant}"
    )
