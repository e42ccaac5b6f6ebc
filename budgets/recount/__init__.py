"""Published tables of costs, counted again."""
