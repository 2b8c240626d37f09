"""The pieces of the method as plain torch: nothing in this package imports Dassl."""
