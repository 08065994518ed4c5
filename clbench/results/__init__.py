"""Everything that can be known from result files alone. Importing it loads no torch."""
