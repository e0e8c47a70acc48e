"""Sampling: our sampler against ``generate`` of transformers, on the same model, prompts, batch and number of tokens.

    python -m bench.sampling
    python -m bench.sampling --rows gpu

Every row is printed as one line of JSON when it is known. ``small`` is a GPT-2 of 1.3 million parameters, ``gpt2`` one
of 124 million with a vocabulary of 50,257, on the processor; ``gpu`` is the latter on a GPU in bf16. Without ``--rows``
the document is ``reports/bench/sampling.json``; one group of rows alone is kept beside it.

Both draw at temperature 0.7 from the nucleus 0.9 with a key-value cache, and may not end before the last token;
``generate`` has no top_k, so that both draw from one distribution. Each way is run once and then timed in several
turns, every other one backwards; a ratio is the median over turns. Weights are random, and the last norm is scaled so
that the nucleus is as wide as stated (``nucleus``, the mean number of tokens): ``generate`` sorts the vocabulary
whatever its width, and ours costs about the same for any. ``forward`` is the model alone, one position a step with
the cache of ``generate``: what no sampler of this kind can fall below by much. ``mixed`` is our sampler after prompts
of 1 to 32 tokens, and ``generate`` after the same ones padded on the left.
"""
