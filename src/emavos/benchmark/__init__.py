"""How fast things run here: `emavos bench` for models, and modules that run by themselves for the rest.

`python -m emavos.benchmark.reference` compares with the published method, `.readout` and `.attention` measure
as their input grows, `.files` what threads save, `.training`, `.finetune` and `.variants` training;
`.roofline` computes what a readout takes on a GPU at least.
"""
