"""Pure functions: the formulas, each once, under one name.

Formulas that states go through take numpy arrays and torch tensors alike; statistics are made in
float64 with numpy. Nothing here reads a file, runs a model or draws from global randomness, and
nothing here imports torch when it is loaded (the fits of `probes`, which run on a model's device, do
when they are called).
"""
