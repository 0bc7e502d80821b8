"""What `catalogue.py` compares: one module a family, each with `comparisons(rng)`."""
