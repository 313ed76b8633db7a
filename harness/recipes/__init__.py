"""Recipes of merges, as mergekit's YAML has them: read, and turned into a plan of tensors."""
