"""The weights of `emavos.confidence`, as this command prints them:

python -m emavos.benchmark.confidence --calibrate --data CLIPS

where CLIPS has the four sequences that the embedded model was not trained on, `emavos.training.HELD_OUT`.
"""

PRESENT = (-1.0, 1.0, -0.2)
ABSENT = (0.0, -0.5, 2.0)
