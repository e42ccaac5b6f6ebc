"""What a student is compared with: taps, adapters and losses. Knows no task, no recipe and no file."""
