"""Official archives to the layouts that builtin.py registers."""
