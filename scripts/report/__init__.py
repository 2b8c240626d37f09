"""What scripts/compare.py is made of: finished runs, statistics over them, tables, and the HTML report."""
