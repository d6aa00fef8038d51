"""The synthetic training corpus: two people talking and listening, with exact ground truth."""
