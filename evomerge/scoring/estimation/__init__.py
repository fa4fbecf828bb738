"""Estimates: mean scores with standard errors, and IRT estimates from few items."""
