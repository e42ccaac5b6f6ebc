"""What is written as JSON and read again: a class per record, which does both; torch is never imported here."""
