"""The weights of `emavos.confidence`, as this command prints them:

python docs/measure/quality/confidence.py --calibrate --data CLIPS --frames 60

CLIPS is a folder with the four sequences that the embedded model was not trained on,
`emavos.training.stages.DAVIS_HELD_OUT`. PRESENT is fitted to `tiny`. ABSENT is fitted to `tiny-3`, which lost
objects more often: `tiny` loses too few on these clips for a fit.
"""

PRESENT = (-0.310, 0.955)
ABSENT = (-2.886, 4.514, -0.783)
