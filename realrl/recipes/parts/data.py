"""What recipes take of batches and from `realrl.datasets`: rows, and where their responses end."""

from realrl.api.batch import concatenated
from realrl.datasets.demonstrations import load_demonstrations
from realrl.datasets.end_tokens import stopping
from realrl.datasets.labelled import load_labelled
from realrl.datasets.pairs import load_pairs, sequences_of
from realrl.datasets.prompts import load_eval_set, load_prompts, load_questions
from realrl.datasets.stop_rules import ends_by

__all__ = [
    "concatenated",
    "ends_by",
    "load_demonstrations",
    "load_eval_set",
    "load_labelled",
    "load_pairs",
    "load_prompts",
    "load_questions",
    "sequences_of",
    "stopping",
]
