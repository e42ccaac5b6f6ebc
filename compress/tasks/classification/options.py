"""The options of drawn shapes."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from featherpress.compress.recipes.data import DataRecipe, Side


class ShapesData(DataRecipe):
    """Shapes of `classes` kinds, drawn from `seed`, `size` pixels a side."""

    kind: Literal["shapes"]
    size: Side = 320
    classes: Annotated[int, Field(ge=2, le=6)] = 6

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, content: Any) -> Any:
        """Take the side under the name that drawn faces have for it too."""
        if not isinstance(content, Mapping) or "image_size" not in content:
            return content
        rest = {key: value for key, value in content.items() if key != "image_size"}
        return rest | {"size": content["image_size"]}

    @model_validator(mode="after")
    def _enough_said(self) -> Self:
        if not (self.train_images and self.validation_images):
            raise ValueError("shapes data needs `train_images` and `validation_images`")
        if self.root or self.unlabelled or self.holdout:
            raise ValueError("shapes data has neither a `root` nor `unlabelled` photographs nor a `holdout`")
        return self
