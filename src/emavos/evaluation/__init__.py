"""The metrics J and F, benchmark protocols, and scores of folders of masks."""

from emavos.evaluation.layouts import VOID, Video, find_videos
from emavos.evaluation.metrics import Statistics, boundary_accuracy, region_similarity, statistics
from emavos.evaluation.protocol import PROTOCOLS, Protocol
from emavos.evaluation.scores import ObjectScore, Score
from emavos.evaluation.scoring import score_folder, score_sequence, score_videos

__all__ = [
    "PROTOCOLS",
    "VOID",
    "ObjectScore",
    "Protocol",
    "Score",
    "Statistics",
    "Video",
    "boundary_accuracy",
    "find_videos",
    "region_similarity",
    "score_folder",
    "score_sequence",
    "score_videos",
    "statistics",
]
