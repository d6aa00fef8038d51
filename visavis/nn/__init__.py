"""ECHO's networks in torch, one concept a file, named after the paper's parts."""
