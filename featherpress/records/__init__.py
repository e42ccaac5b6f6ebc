"""What is written as JSON and read again: a class per record, which does both; torch is never imported here."""

from featherpress.records.comparison import Arm, Comparison, Difference, TeacherScore
from featherpress.records.record import Part, Record, read_bytes, read_schema, read_text

__all__ = [
    "Arm",
    "Comparison",
    "Difference",
    "Part",
    "Record",
    "TeacherScore",
    "read_bytes",
    "read_schema",
    "read_text",
]
