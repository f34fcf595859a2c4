"""Ablations as data: a grid over the fields of a recipe, one run after another, and a table at the end."""
