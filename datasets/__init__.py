"""Data sets: each module registers one with Dassl when it is imported."""
