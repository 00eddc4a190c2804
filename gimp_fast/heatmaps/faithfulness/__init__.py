"""Whether weights are faithful: what a prediction does as patches or genes are taken away."""
