"""Losses and gradients that are NaN or infinite: the guard of a step, and the end of the run."""
