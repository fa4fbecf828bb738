"""Pure Pareto math: dominance, hypervolume, quadratic surrogates, fronts."""
