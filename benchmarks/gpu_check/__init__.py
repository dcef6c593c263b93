"""`make check-gpu`: what trains and predicts on a CPU does the same on a GPU, and how fast."""
