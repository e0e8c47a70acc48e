"""Every objective against a numpy reference in float64, value and gradient, and what the losses promise."""

import tracemalloc

import numpy as np
import pytest
import torch

from freshstart import objectives
from freshstart.objectives import BAD, GOOD, NONE, Batch, Good, TrainScores, rewards
from freshstart.settings import kinds

NAMES = kinds("freshstart.objectives")
ROWS, POSITIONS = 6, 50


def resolved(name, scores=None, **asked):
    """An objective and its numbers."""
    objective = objectives.load(name)
    settings = objective.settings(**({"good": Good(score=0.1), "positions": 1000} | asked))
    return objective, objective.resolve(settings, scores or train_scores())


def train_scores(seed=0):
    rng = np.random.default_rng(seed)
    segments = np.where(rng.random(500) < 0.7, 0.0, rng.random(500)).astype(np.float32)
    return TrainScores(segments, rng.integers(1, 30, 500), segments[:100])


def batch(dtype=torch.float64, seed=0):
    """A batch, some of whose positions are control tokens or end of text (NaN), that asks for gradients."""
    rng = np.random.default_rng(seed)
    logp = -rng.exponential(2.0, (ROWS, POSITIONS)) - 1e-3
    score = np.where(rng.random((ROWS, POSITIONS)) < 0.6, 0.0, rng.random((ROWS, POSITIONS)))
    score[rng.random((ROWS, POSITIONS)) < 0.1] = np.nan
    value = rng.normal(size=(ROWS, POSITIONS))
    whole = Batch(*(torch.tensor(array, dtype=dtype) for array in (logp, score, value)))
    whole.logp.requires_grad_()
    whole.value.requires_grad_()
    return whole


def numpy_reward(score, n):
    if n["rewards"] == "raw":
        return -score
    if n["rewards"] == "standardized":
        return (n["mean"] - score) / n["deviation"]
    return np.where(np.isnan(score), np.nan, np.interp(np.nan_to_num(score), n["knots"], n["knot_rewards"]))


def reference(name, logp, score, value, n):
    """(loss, gradient by logp, gradient by value), each written out from the formula."""
    nan = np.isnan(score)
    size = logp.size
    if name in ("mle", "filtered", "conditional"):
        return -logp.mean(), -np.ones_like(logp) / size, np.zeros_like(logp)
    if name == "unlikelihood":
        bad = np.nan_to_num(score, nan=-1.0) > n["threshold"]
        p = np.exp(logp)
        loss = np.where(bad, -n["alpha"] * np.log(1 - p), -logp)
        return loss.mean(), np.where(bad, n["alpha"] * p / (1 - p), -1.0) / size, np.zeros_like(logp)
    reward = numpy_reward(score, n)
    if name == "rwr":
        weight = np.where(nan, 1.0, np.minimum(np.exp(reward / n["beta"]), n["most"]) / n["mean_weight"])
        return (-weight * logp).mean(), -weight / size, np.zeros_like(logp)
    sigmoid = 1 / (1 + np.exp(-value))
    v, slope = (-sigmoid, -sigmoid * (1 - sigmoid)) if n["rewards"] == "raw" else (value, np.ones_like(value))
    raw = np.minimum(np.exp((reward - v) / n["beta"]), n["most"])
    scale = raw[~nan].mean() if n["normalize"] else 1.0
    weight = np.where(nan, 1.0, raw / scale)
    squared = np.where(nan, 0.0, (reward - v) ** 2)
    a = n["alpha"]
    by_value = np.where(nan, 0.0, -2 * (1 - a) * (np.nan_to_num(reward) - v) * slope) / size
    return (-a * weight * logp + (1 - a) * squared).mean(), -a * weight / size, by_value


CASES = [("mle", {}), ("filtered", {}), ("conditional", {}), ("unlikelihood", {"alpha": 0.7})]
CASES += [
    (name, {"rewards": kind, "beta": beta, "normalize": normalize})
    for name, beta in (("rwr", 0.8), ("awr", 1.3))
    for kind in ("raw", "standardized", "rank")
    for normalize in (False, True)
]


@pytest.mark.parametrize(("name", "asked"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_loss_and_gradient_equal_the_reference(name, asked, dtype, tolerance):
    objective, numbers = resolved(name, **asked)
    whole = batch(dtype)
    losses, _ = objective.loss(whole, numbers)
    losses.mean().backward()
    arrays = [part.detach().numpy() for part in batch()[:3]]
    loss, by_logp, by_value = reference(name, *arrays, numbers)
    assert losses.shape == (ROWS, POSITIONS)
    assert losses.mean().item() == pytest.approx(loss, rel=tolerance)
    assert np.linalg.norm(whole.logp.grad.numpy() - by_logp) <= tolerance * np.linalg.norm(by_logp)
    if objective.needs.value_head:
        assert np.linalg.norm(whole.value.grad.numpy() - by_value) <= tolerance * np.linalg.norm(by_value)


@pytest.mark.parametrize("name", NAMES)
def test_end_of_text_and_control_tokens_are_plain_likelihood(name):
    objective, numbers = resolved(name)
    whole = batch()
    losses, _ = objective.loss(whole, numbers)
    unscored = whole.score.isnan()
    share = numbers.get("alpha", 1.0) if name == "awr" else 1.0
    torch.testing.assert_close(losses[unscored], -share * whole.logp[unscored])


def test_unlikelihood_thresholds_at_zero():
    """The original's `if threshold:` made this maximum likelihood (reference finding 1)."""
    unlikelihood, numbers = resolved("unlikelihood", good=Good(score=0.0))
    assert numbers["threshold"] == 0.0
    whole = batch()
    losses, terms = unlikelihood.loss(whole, numbers)
    bad = whole.score > 0
    assert bad.any()
    assert not torch.allclose(losses, -whole.logp)
    torch.testing.assert_close(losses[~bad], -whole.logp[~bad])
    assert terms["share_bad"] == bad.double().mean()


def test_unlikelihood_pushes_the_most_certain_bad_tokens():
    """By the logits the push is p, 1 where the model is certain, as far as fp32 can tell p from 1."""
    unlikelihood, numbers = resolved("unlikelihood", good=Good(score=0.0))
    logp = torch.tensor([[-1e-4, -1e-5, -1e-6, -2e-7, -1e-8, 0.0]], requires_grad=True)
    losses, _ = unlikelihood.loss(Batch(logp, torch.ones(1, 6)), numbers)
    losses.sum().backward()
    assert (losses.diff() > 0).all()
    assert torch.isfinite(losses).all()
    torch.testing.assert_close(-torch.expm1(logp[0, :4]) * logp.grad[0, :4], torch.exp(logp[0, :4]))
    assert logp.grad[0, 4:].tolist() == [pytest.approx(1e7, rel=1e-3)] * 2
    naive = torch.log((1 - torch.exp(torch.tensor(-1e-8))).clamp(min=1e-20))
    assert naive < -40  # 1 - exp(logp) has rounded to 0 there: the clamp wins and the gradient is lost


@pytest.mark.parametrize("transform", ["raw", "standardized", "rank"])
def test_rewards(transform):
    scores = train_scores()
    numbers = rewards.resolve(transform, scores)
    reward = rewards.reward(torch.from_numpy(scores.segments).double(), numbers).numpy()
    order = np.argsort(scores.segments, kind="stable")
    assert (np.diff(reward[order]) <= 1e-12).all()  # a worse score never has a higher reward
    mean = np.average(reward, weights=scores.tokens)
    if transform == "standardized":
        assert mean == pytest.approx(0, abs=1e-6)
        assert np.average(reward**2, weights=scores.tokens) == pytest.approx(1, rel=1e-6)
    if transform == "rank":
        assert mean == pytest.approx(0, abs=1e-6)  # mid-ranks: ties share theirs
        assert np.abs(reward).max() <= 1


def test_rank_of_many_distinct_scores_is_interpolated():
    rng = np.random.default_rng(1)
    scores = TrainScores(rng.random(20_000).astype(np.float32), np.ones(20_000, np.int64), np.zeros(1))
    numbers = rewards.resolve("rank", scores)
    assert len(numbers["knots"]) <= rewards.KNOTS
    values = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    expected = np.array([1 - 2 * (scores.segments <= value).mean() for value in values.numpy()])
    np.testing.assert_allclose(rewards.reward(values, numbers).numpy(), expected, atol=3e-3)


@pytest.mark.parametrize("distinct", [1, 900, 60_000])
def test_numbers_of_the_pieces_are_those_of_the_whole(workplace, monkeypatch, distinct):
    rng = np.random.default_rng(2)
    scores = rng.permutation(np.linspace(0, 1, distinct, dtype=np.float32)[rng.integers(0, distinct, 60_000)])
    tokens = rng.integers(1, 30, len(scores))
    wide = scores.astype(np.float64)
    mean = np.average(wide, weights=tokens.astype(np.float64))
    values, inverse = np.unique(wide, return_inverse=True)
    mass = np.bincount(inverse, weights=tokens)
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    if len(values) > rewards.KNOTS:
        knots = np.unique(np.searchsorted(middle, np.linspace(middle[0], middle[-1], rewards.KNOTS)))
        values, middle = values[knots], middle[knots]
    train = TrainScores(scores, tokens, scores[:10])
    asked = {"beta": 0.7, "most": 3.0}
    whole = rewards.mean_weight({"rewards": "raw"}, **asked, scores=train)
    quantile = float(np.quantile(scores, 0.7))
    monkeypatch.setattr(rewards, "CHUNK", 1000)
    tracemalloc.start()
    assert rewards.resolve("standardized", train)["mean"] == mean
    ranks = rewards.resolve("rank", train)
    assert rewards.mean_weight({"rewards": "raw"}, **asked, scores=train) == whole
    assert Good(quantile=0.7).threshold(scores) == quantile
    assert tracemalloc.get_traced_memory()[1] < scores.nbytes
    tracemalloc.stop()
    assert (ranks["knots"], ranks["knot_rewards"]) == (values.tolist(), (1 - 2 * middle).tolist())


def test_weights_are_clipped_and_have_mean_one_over_train():
    scores = train_scores()
    rwr, numbers = resolved("rwr", scores, beta=0.05, most=5.0)
    segment = torch.from_numpy(scores.segments).double()[None]
    losses, _ = rwr.loss(Batch(-torch.ones_like(segment), segment), numbers)
    assert losses.max() <= 5.0 / numbers["mean_weight"] + 1e-9
    assert np.average(losses[0].numpy(), weights=scores.tokens) == pytest.approx(1.0, rel=1e-6)


def test_awr_weight_does_not_reach_the_value_head():
    awr, numbers = resolved("awr", alpha=1.0)
    whole = batch()
    awr.loss(whole, numbers)[0].mean().backward()
    assert whole.value.grad is None or not whole.value.grad.any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("score", [0.0, float("nan")])
def test_a_batch_without_bad_tokens_gives_finite_losses(name, score):
    objective, numbers = resolved(name)
    losses, _ = objective.loss(Batch(-torch.ones(2, 4), torch.full((2, 4), score), torch.zeros(2, 4)), numbers)
    assert torch.isfinite(losses).all()


def test_conditional_labels():
    conditional, numbers = resolved("conditional", good=Good(score=0.2), drop=0.5)
    scores = np.array([0.0, 0.2, 0.3, 0.1], np.float32)
    assert conditional.label(scores, np.array([0.9, 0.5, 0.7, 0.1]), numbers).tolist() == [GOOD, GOOD, BAD, NONE]


def test_filtered_keeps_documents_up_to_the_quantile():
    documents = np.array([0.5, 0.1, 0.2, 0.4, 0.3], np.float32)
    filtered, numbers = resolved("filtered", TrainScores(documents, np.ones(5, np.int64), documents), quantile=0.5)
    assert filtered.keep(documents, numbers).tolist() == [False, True, True, False, True]


def test_good_is_a_score_or_a_quantile():
    assert Good(score=0.0).threshold(np.ones(3)) == 0.0
    assert Good(quantile=0.5).threshold(np.array([0.0, 1.0, 2.0])) == 1.0
    for both in ({}, {"score": 0.0, "quantile": 0.5}):
        with pytest.raises(ValueError, match="either score or quantile"):
            Good(**both)
