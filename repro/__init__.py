"""From the tables of `paper_tables/` to runs, and from the records of runs back to tables."""
