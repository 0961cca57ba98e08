"""How fast things run here: `python -m emavos.benchmark` (models), `python -m emavos.benchmark.attention`."""
