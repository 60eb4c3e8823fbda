"""BLEU: how many runs of words a translation shares with those of people."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

__all__ = ["bleu"]

Tokens = Sequence[Hashable]


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], *, order: int = 4) -> float:
    r"""BLEU of a whole corpus, in 0 .. 1, without smoothing.

    .. math:: \exp\left(\min(0, 1 - r / c)\right) \Big(\prod_{n=1}^{N} p_n\Big)^{1/N}

    :math:`p_n` is the share of the candidates' runs of n tokens that stand in a reference too, each counted at most as
    often as in the one reference that has it most often; c is the candidates' length, r that of the references closest
    to them in length (the shorter one of two). Runs and lengths are summed over the corpus before anything is divided.
    If no run of some length matches, it is 0.

    Args:
      candidates: the translations, each a sequence of tokens.
      references: for each candidate one or more translations by people.
      order: N, the longest runs.

    >>> the = "the the the the the the the".split()
    >>> people = ["the cat is on the mat".split(), "there is a cat on the mat".split()]
    >>> round(bleu([the], [people], order=1), 4)  # the paper's 2/7
    0.2857

    Raises:
      ValueError: no candidate, another number of references, a candidate without any, an order below 1.

    sacrebleu gives 100 times this number (`smooth_method="none"`, `tokenize="none"`), and splits text itself.

    Reference: Papineni, Roukos, Ward and Zhu, BLEU: a method for automatic evaluation of machine translation, 2002.
    """
    if not candidates or len(candidates) != len(references) or not all(references) or order < 1:
        raise ValueError(
            f"bleu got {len(candidates)} candidates, {len(references)} lists of references and order={order}: expected "
            f"equally many, at least one, each list with a reference, and an order of at least 1"
        )
    hits, counts, length, wanted = [0] * order, [0] * order, 0, 0
    for candidate, people in zip(candidates, references, strict=True):
        length += len(candidate)
        wanted += min((abs(len(one) - len(candidate)), len(one)) for one in people)[1]
        for n in range(1, order + 1):
            found = _runs(candidate, n)
            most: Counter[Tokens] = Counter()
            for one in people:
                most |= _runs(one, n)
            hits[n - 1] += sum((found & most).values())
            counts[n - 1] += sum(found.values())
    if not all(hits):
        return 0.0
    mean = sum(math.log(hit / count) for hit, count in zip(hits, counts, strict=True)) / order
    return math.exp(min(0.0, 1 - wanted / length) + mean)


def _runs(tokens: Tokens, n: int) -> Counter[Tokens]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
