"""One model of the zoo: what it is built from and what it costs."""

from typing import Any, ClassVar

from featherpress.records.record import Record


class Model(Record):
    """What `featherpress models show NAME --json` prints, as far as others read it."""

    SCHEMA: ClassVar[str] = "featherpress.model/1"

    name: str
    settings: dict[str, Any]
