"""The sampler draws from the distribution that it states, and nothing else."""

import copy

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from freshstart.sampling.sampler import CANDIDATES, Decoding, choose, sample


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=40, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
        model = GPT2LMHeadModel(config).eval()
    model.lm_head.weight.data *= 5  # a sharper distribution
    return model


def decoding(**changes):
    return Decoding(**({"temperature": 1.0, "top_p": 1.0, "least": 0, "most": 10, "end": 0, "forbidden": ()} | changes))


def nucleus(probabilities, top_p):
    """The shortest prefix of the sorted tokens that holds top_p, renormalised: ten lines of numpy."""
    order = np.argsort(-probabilities, kind="stable")
    kept, held = [], 0.0
    for token in order:
        kept.append(token)
        held += probabilities[token]
        if held >= top_p:
            break
    result = np.zeros_like(probabilities)
    result[kept] = probabilities[kept] / probabilities[kept].sum()
    return result


@pytest.mark.parametrize("vocabulary", [20, CANDIDATES * 8])
@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
def test_choose_draws_from_the_nucleus(vocabulary, top_p):
    """Inversion of the distribution function over a grid of uniforms; a flat row needs more than the candidates."""
    rng = np.random.default_rng(0)
    for scale in (0.1, 3.0):
        logits = torch.tensor(rng.normal(size=vocabulary) * scale, dtype=torch.float32)
        count = 40_000
        uniform = (torch.arange(count, dtype=torch.float64)[:, None] + 0.5) / count
        drawn = choose(logits.expand(count, -1), top_p, uniform)
        expected = nucleus(torch.softmax(logits.double(), 0).numpy(), top_p)
        share = np.bincount(drawn.numpy(), minlength=vocabulary) / count
        np.testing.assert_allclose(share, expected, atol=2e-4)


def test_samples_follow_the_models_own_distribution(model):
    """Second token given the first, against the softmax of the model itself."""
    drawn = sample(model, [[0]] * 4000, 2000, decoding(most=2, least=2), seed=0)
    firsts, seconds = np.array([continuation.tokens for continuation in drawn]).T
    token = np.bincount(firsts).argmax()
    seconds = seconds[firsts == token]
    with torch.no_grad():
        logits = model(torch.tensor([[0, token]])).logits[0, -1]
    logits[0] = -torch.inf
    expected = torch.softmax(logits, 0).numpy()
    share = np.bincount(seconds, minlength=40) / len(seconds)
    assert np.abs(share - expected).sum() < 5 * np.sqrt(40 / len(seconds))


PROMPTS = [[0, 3], [0], [0, 3, 9, 2], [0, 8], [0], [0, 7, 1, 4], [0, 3, 9, 2]]


def test_the_cache_and_the_batch_change_nothing(model):
    """Greedy samples after prompts of mixed length equal those of a model that is run anew at each step on each."""
    expected = []
    for prompt in PROMPTS:
        tokens = list(prompt)
        while len(tokens) < len(prompt) + 20:
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).logits[0, -1]
            logits[0] = -torch.inf
            tokens.append(int(logits.argmax()))
        expected.append(tokens[len(prompt) :])
    for batch_size in (1, 2, 10):
        drawn = sample(model, PROMPTS, batch_size, decoding(temperature=1e-4, most=20, least=20), seed=0)
        assert [continuation.tokens for continuation in drawn] == expected


def test_samples_are_a_function_of_the_seed(model):
    first, again = (sample(model, [[0]] * 50, 20, decoding(), seed=3) for _ in range(2))
    assert first == again
    assert sample(model, [[0]] * 50, 20, decoding(), seed=4) != first
    assert sample(model, [[0]] * 20, 20, decoding(), seed=3) == first[:20]  # a batch does not depend on later ones
    mixed = sample(model, [prompt for _ in range(50) for prompt in ([0, 3], [0])], 20, decoding(), seed=3)
    assert mixed[1::2] == first  # the shortest come first
    assert len({tuple(continuation.tokens) for continuation in first}) > 20


def test_forbidden_tokens_and_the_least_length(model):
    drawn = sample(model, [[0]] * 200, 100, decoding(forbidden=(5, 6, 7), least=4, most=12), seed=0)
    tokens = {token for continuation in drawn for token in continuation.tokens}
    assert not tokens & {0, 5, 6, 7}
    assert all(len(continuation.tokens) >= 4 for continuation in drawn)
    assert {continuation.ended for continuation in drawn} == {True, False}
    assert all(len(continuation.tokens) == 12 for continuation in drawn if not continuation.ended)


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_limits_count_text_tokens(model, share):
    """A model that writes a control token now and then, or more often than text, still writes the text asked for."""
    control = 17
    probabilities = torch.full((40,), (0.8 - share) / 38)
    probabilities[0], probabilities[control] = 0.2, share
    eager = copy.deepcopy(model)
    eager.lm_head = torch.nn.Linear(32, 40)
    eager.lm_head.weight.data.zero_()
    eager.lm_head.bias.data = probabilities.log()
    drawn = sample(eager, [[0, control]] * 64, 64, decoding(most=3, least=3, control=(control,)), seed=0)
    assert all(len(continuation.tokens) == 3 and not continuation.ended for continuation in drawn)
    drawn += sample(eager, [[0, control]] * 64, 64, decoding(most=4, least=2, control=(control,)), seed=0)
    assert {len(continuation.tokens) for continuation in drawn[64:]} == {2, 3, 4}
    assert all(continuation.ended == (len(continuation.tokens) < 4) for continuation in drawn[64:])
    assert not any({control, 0} & set(continuation.tokens) for continuation in drawn)


def test_more_than_the_context_is_refused(model):
    with pytest.raises(ValueError, match="32 tokens of prompt leave no room in the context of 32"):
        sample(model, [[0], [0] * 32], 1, decoding(), seed=0)
    cut = sample(model, [[0] * 25], 1, decoding(most=10, least=10), seed=0)[0]
    assert (len(cut.tokens), cut.ended) == (7, False)
