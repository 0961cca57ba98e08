"""How fast models run here: what `emavos bench` measures and draws.

The programs behind the other figures of the documents are in docs/measure of the source.
"""
