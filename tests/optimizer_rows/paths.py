"""Paths that many states share, for a parameter called `w`."""

LR = ["count", "learning_rate"]
ADAM = ["count", "mu/w", "nu/w"]


def at(*links: list[str]) -> list[str]:
    return [f"{i}/{path}" for i, link in enumerate(links) for path in link]
