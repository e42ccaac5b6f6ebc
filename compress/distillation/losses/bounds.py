"""The bounds of losses' options, which recipes and terms check."""

from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt, Le, Lt

Weight: TypeAlias = Annotated[float, Ge(0)]
Fraction: TypeAlias = Annotated[float, Ge(0), Le(1)]
Share: TypeAlias = Annotated[float, Ge(0), Lt(1)]
Temperature: TypeAlias = Annotated[float, Gt(0), Le(20)]
