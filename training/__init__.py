"""Training of visavis: the synthetic corpus, the models and their losses."""
