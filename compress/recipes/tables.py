"""What every table of a recipe is; without the losses, which bring torch and other packages' code."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A table without unknown keys that does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
