"""J and F, and the score of DAVIS."""

from emavos.evaluation.davis import (
    VOID,
    DavisScore,
    ObjectScore,
    evaluate_davis,
    list_sequences,
    score_sequence,
)
from emavos.evaluation.metrics import Statistics, boundary_accuracy, region_similarity, statistics

__all__ = [
    "VOID",
    "DavisScore",
    "ObjectScore",
    "Statistics",
    "boundary_accuracy",
    "evaluate_davis",
    "list_sequences",
    "region_similarity",
    "score_sequence",
    "statistics",
]
