"""Speed of the models on this machine: `emavos bench` measures and plots with these modules.

The programs for the other figures in the docs are in docs/measure of the source.
"""
