"""How fast things run here: `python -m emavos.benchmark` (models), and `.attention` and `.readout` beside it.

`python -m emavos.benchmark.roofline` computes what a readout takes on a GPU at least.
"""
