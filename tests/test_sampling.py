"""The sampler draws from the distribution that it states, and nothing else."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest
from transformers import AutoConfig, AutoModelForCausalLM

from freshstart.sampling.sampler import BLOCK, Decoding, choose, sample
from freshstart.sampling.uniform import below, uniform

SHAPE = {"vocab_size": 40, "max_position_embeddings": 32, "hidden_size": 32, "num_hidden_layers": 2}
START = torch.tensor(0)


def tiny(kind, attention="eager"):
    keys = {"num_attention_heads": 2, "intermediate_size": 64, "bos_token_id": 0, "eos_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **SHAPE, **keys, **({} if kind == "gpt2" else {"pad_token_id": None}))
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    model.get_output_embeddings().weight.data *= 5 if kind == "gpt2" else 20  # a sharper distribution
    return model


@pytest.fixture(scope="module")
def model():
    return tiny("gpt2")


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


@pytest.mark.parametrize("vocabulary", [20, 5 * BLOCK + 3])
@pytest.mark.parametrize("top_p", [0.02, 0.3, 0.9, 1.0])
def test_choose_draws_from_the_nucleus(vocabulary, top_p):
    rng = np.random.default_rng(0)
    for scale in (0.1, 3.0):
        logits = torch.tensor(rng.normal(size=vocabulary) * scale, dtype=torch.float32)
        logits[3] = -torch.inf
        count = 10_000
        drawn = choose(logits.expand(count, -1), top_p, below(START, torch.arange(count)))
        expected = nucleus(torch.softmax(logits.double(), 0).numpy(), top_p) * count
        found = np.bincount(drawn.numpy(), minlength=vocabulary)
        assert not found[expected == 0].any()
        often = expected >= 5
        pooled = [[*counts[often], counts[~often].sum()] for counts in (found, expected)]
        kept = pooled if pooled[1][-1] else [counts[:-1] for counts in pooled]
        assert len(kept[0]) == 1 or chisquare(*kept).pvalue > 1e-3


def test_choose_takes_what_is_equally_likely_together():
    drawn = choose(torch.zeros(4000, 10), 0.5, below(START, torch.arange(4000)))
    assert set(drawn.tolist()) == set(range(10))
    sure = torch.full((50, 300), -torch.inf)
    sure[:, 299] = -1e4
    assert set(choose(sure, 0.9, below(START, torch.arange(50))).tolist()) == {299}


def test_uniforms_are_those_of_splitmix():
    state, mask = 5, (1 << 64) - 1
    state = (state + 8 * 0x9E3779B97F4A7C15) & mask
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> shift)) * factor & mask
    state ^= state >> 31
    assert int(below(torch.tensor(5), 7)) & mask == state
    assert float(uniform(below(torch.tensor(5), 7))) == (state >> 11) / 2**53


def test_uniforms_are_uniform_and_independent():
    """Of seeds, rows, steps and draws, each and in pairs of neighbours along every axis."""
    states = START
    for axis, size in enumerate((5, 100, 50, 3)):
        states = below(states.unsqueeze(-1), torch.arange(size).view((1,) * axis + (size,)))
    numbers = uniform(states).numpy()
    assert kstest(numbers.ravel(), "uniform").pvalue > 1e-3
    for axis in range(4):
        first, second = (np.delete(numbers, place, axis).ravel() for place in (-1, 0))
        cells = np.bincount((first * 32).astype(int) * 32 + (second * 32).astype(int), minlength=1024)
        assert chisquare(cells).pvalue > 1e-3
        low_bits = np.bincount((first * 2**20 % 1 * 16).astype(int) * 16 + (second * 2**20 % 1 * 16).astype(int))
        assert chisquare(low_bits).pvalue > 1e-3


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
    for batch_size in (1, 3, 10):
        drawn = sample(model, PROMPTS, batch_size, decoding(temperature=1e-4, most=20, least=20), seed=0)
        assert [continuation.tokens for continuation in drawn] == expected


MANY = [pytest.param(kind, "sdpa", 1000, marks=pytest.mark.slow) for kind in ("gpt2", "llama")]
FEW = [(kind, attention, 50) for kind in ("gpt2", "llama", "gpt_neox") for attention in ("eager", "sdpa")]


@pytest.mark.parametrize(("kind", "attention", "count"), FEW + MANY)
def test_a_sample_does_not_depend_on_its_batch(kind, attention, count):
    """Prompts of mixed length, some repeated, some that leave little room: equal to one by one, token for token."""
    model, rng = tiny(kind, attention), np.random.default_rng(0)
    prompts = [[0, *rng.integers(1, 40, rng.integers(0, 31)).tolist()] for _ in range(count - 10)]
    prompts += prompts[:10]
    how = decoding(top_p=0.9, least=2, most=12, control=(17,))
    apart = sample(model, prompts, 1, how, seed=3)
    assert sample(model, prompts, 64, how, seed=3) == apart
    assert sample(model, prompts[20:], 25, how, seed=3, first=20) == apart[20:]
    assert len({len(drawn.tokens) for drawn in apart}) > 4
    assert {drawn.ended for drawn in apart} == {True, False}


def test_samples_are_a_function_of_the_seed(model):
    first, again = (sample(model, [[0]] * 50, 20, decoding(), seed=3) for _ in range(2))
    assert first == again
    assert sample(model, [[0]] * 50, 20, decoding(), seed=4) != first
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
