"""Generation: the cache against full passes, rules against those of transformers, beams against all sequences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.reference import reference

from dlkit import models, nn

GPT = models.gpt(vocab=7, length=16, d=16, heads=2, depth=2)
LLAMA = models.llama(vocab=7, d=16, heads=4, depth=2, kv_heads=2)
LSTM = nn.Chain(nn.Embedding(7, 8), nn.LSTM(8, 8), nn.Linear(8, 7))


def sharp(model):
    """Parameters far enough from 0 that tokens differ from step to step."""
    return jax.tree.map(lambda a: a * 8 if a.ndim > 1 else a, model.init(jax.random.key(0)))


def by_full_passes(model, params, prompt, steps):
    """The most likely token, the whole sequence computed anew for each, padded to one length (the model is causal)."""
    t = prompt.shape[1]
    full = jax.jit(lambda ids: model.apply(params, None, ids, nn.EVAL)[0])
    ids = np.zeros((prompt.shape[0], t + steps), np.int32)
    ids[:, :t] = prompt
    for i in range(t, t + steps):
        ids[:, i] = np.asarray(full(jnp.asarray(ids)))[:, i - 1].argmax(-1)
    return ids[:, t:]


@pytest.mark.parametrize("model", [GPT, LLAMA, LSTM], ids=["gpt", "llama", "lstm"])
def test_cached_generation_is_that_of_full_passes(model):
    params, prompt = sharp(model), jnp.array([[1, 2, 3], [4, 0, 6]], jnp.int32)
    found = models.generate(model, params, prompt, 9)
    assert (np.asarray(found) == by_full_passes(model, params, prompt, 9)).all()
    assert len(np.unique(found)) > 1


@pytest.mark.parametrize("model", [GPT, LLAMA], ids=["gpt", "llama"])
def test_prompts_of_different_lengths_are_alone(model):
    params = sharp(model)
    prompt = jnp.array([[1, 2, 3, 4], [5, 6, 0, 0], [3, 0, 0, 0]], jnp.int32)
    lengths = jnp.array([4, 2, 1], jnp.int32)
    found = models.generate(model, params, prompt, 6, lengths=lengths)
    for row, n in enumerate([4, 2, 1]):
        alone = by_full_passes(model, params, np.asarray(prompt)[row : row + 1, :n], 6)
        assert (np.asarray(found)[row] == alone[0]).all()


def test_stream_gives_the_tokens_of_generate_and_rows_end(key):
    params, prompt = GPT.init(key), jnp.array([[1, 2, 3], [4, 0, 6]], jnp.int32)
    given = {"key": key, "sampler": models.Sampler(0.9, top_k=5), "end": 2}
    whole = np.asarray(models.generate(GPT, params, prompt, 12, **given))
    kept = list(models.stream(GPT, params, prompt, 12, **given))  # the caller's, though the cache is donated
    pieces = np.stack([np.asarray(t) for t in kept], 1)
    assert (whole[:, : pieces.shape[1]] == pieces).all()
    assert (whole[:, pieces.shape[1] :] == 2).all()
    for row in whole:
        first = (row == 2).argmax() if (row == 2).any() else len(row)
        assert (row[first:] == 2).all()
    assert (whole == 2).any()
    again = models.generate(GPT, params, prompt, 12, **given | {"key": jax.random.key(9)})
    assert (np.asarray(again) != whole).any()


RULES = {
    "temperature": (models.Sampler(0.7), lambda t: [t.TemperatureLogitsWarper(0.7)]),
    "top_k": (models.Sampler(top_k=3), lambda t: [t.TopKLogitsWarper(3)]),
    "top_p": (models.Sampler(top_p=0.6), lambda t: [t.TopPLogitsWarper(0.6)]),
    "min_p": (models.Sampler(min_p=0.2), lambda t: [t.MinPLogitsWarper(0.2)]),
    "all": (
        models.Sampler(1.3, 6, 0.9, 0.05),
        lambda t: [
            t.TemperatureLogitsWarper(1.3),
            t.TopKLogitsWarper(6),
            t.TopPLogitsWarper(0.9),
            t.MinPLogitsWarper(0.05),
        ],
    ),
}


def test_rules_are_those_of_transformers():
    logits = (2 * np.random.default_rng(0).standard_normal((16, 11))).astype(np.float32)

    def live():
        import torch
        from transformers.generation import logits_process

        found = {}
        for name, (_, rules) in RULES.items():
            y = torch.tensor(logits)
            for rule in rules(logits_process):
                y = rule(None, y)
            found[name] = y.numpy()
        return found

    told = reference("models/sampling/rules", live, needs="transformers")
    for name, (sampler, _) in RULES.items():
        ours = np.asarray(jax.jit(sampler.filtered)(logits))
        assert (np.isinf(ours) == np.isinf(told[name])).all(), name
        kept = np.isfinite(ours)
        np.testing.assert_allclose(ours[kept], told[name][kept], rtol=1e-6, err_msg=name)
        assert kept.any(-1).all()


def test_draws_have_the_filtered_distribution(key):
    """Frequencies of 20,000 draws; 5 standard deviations of a frequency are below 0.018."""
    p = jnp.array([0.4, 0.3, 0.2, 0.1], jnp.float32)
    drawn = models.Sampler(top_p=0.65)(key, jnp.broadcast_to(jnp.log(p), (20_000, 4)))
    share = np.bincount(np.asarray(drawn), minlength=4) / 20_000
    assert np.abs(share - np.array([4 / 7, 3 / 7, 0, 0])).max() < 0.018
    assert models.GREEDY(None, jnp.log(p)) == 0


def test_enough_beams_find_the_best_of_all_continuations():
    params, prompt, steps, end = sharp(GPT), jnp.array([[1, 2], [4, 6]], jnp.int32), 3, 5
    every = np.array(list(itertools.product(range(7), repeat=steps)), np.int32)
    tokens, scores = models.beam_search(GPT, params, prompt, steps, beams=343, end=end)
    full = jax.jit(lambda ids: jax.nn.log_softmax(GPT.apply(params, None, ids, nn.EVAL)[0]))
    for row in range(2):
        ids = np.concatenate([np.broadcast_to(np.asarray(prompt)[row], (343, 2)), every], 1)
        logp = np.take_along_axis(np.asarray(full(jnp.asarray(ids)))[:, 1:-1], every[..., None], 2)[..., 0]
        best = {}
        for sequence, each in zip(every, logp, strict=True):  # one entry for all that agree up to the end
            n = list(sequence).index(end) + 1 if end in sequence else steps
            best[tuple(sequence[:n])] = each[:n].sum()
        order = sorted(best, key=best.get, reverse=True)[:20]
        np.testing.assert_allclose(scores[row, :20], [best[s] for s in order], rtol=1e-5)
        assert tuple(np.asarray(tokens)[row, 0][: len(order[0])]) == order[0]


def test_one_beam_is_greedy_and_the_penalty_divides():
    params, prompt = sharp(GPT), jnp.array([[1, 2, 3]], jnp.int32)
    tokens, scores = models.beam_search(GPT, params, prompt, 6, beams=1)
    assert (tokens[:, 0] == models.generate(GPT, params, prompt, 6)).all()
    _, halved = models.beam_search(GPT, params, prompt, 6, beams=1, length_penalty=1.0)
    np.testing.assert_allclose(halved * 6, scores, rtol=1e-6)


def test_bad_requests_are_named(key):
    params, prompt = GPT.init(key), jnp.ones((1, 3), jnp.int32)
    with pytest.raises(ValueError, match="the model has positions for 16"):
        models.generate(GPT, params, prompt, 15)
    with pytest.raises(ValueError, match="draws at random: give a key"):
        models.generate(GPT, params, prompt, 2, sampler=models.Sampler())
    with pytest.raises(ValueError, match="at least one step"):
        models.generate(GPT, params, prompt, 0)
    with pytest.raises(ValueError, match=r"expected 1 .. T a row"):
        models.generate(GPT, params, prompt, 2, lengths=jnp.array([4]))
    with pytest.raises(ValueError, match="top_p in"):
        models.Sampler(top_p=0.0)
