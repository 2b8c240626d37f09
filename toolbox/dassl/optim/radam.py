"""RAdam (Liu et al., arXiv 1908.03265), where checkouts look for it: torch's own."""

from torch.optim import RAdam

__all__ = ["RAdam"]
