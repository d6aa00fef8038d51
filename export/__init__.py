"""From trained networks to a model repository that Triton can load."""
