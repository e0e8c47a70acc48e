"""freshstart: pretraining language models with human preferences from the first token.

Rooms, in the order the data flows: corpora, scorers, scoring, tokens, objectives, training, sampling, evaluation,
reporting. ``params``, ``files``, ``progress`` and ``errors`` are the ground floor. ``stages/`` holds the doors that DVC
opens.
"""

__version__ = "0.1.0"
