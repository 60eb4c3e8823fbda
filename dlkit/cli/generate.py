"""`dlkit generate`: text from a language model."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import Positional, arg

from dlkit.cli.report import say

__all__ = ["Generate"]


@dataclass(frozen=True)
class Generate:
    """Continue a prompt with a language model: a run of yours, or a directory of Hugging Face's.

    A directory of Hugging Face's holds config.json, model.safetensors (or shards) and tokenizer.json, a run
    tokenizer.json beside its config. Text appears as it is made; with --beams at the end.
    """

    model: Annotated[Positional[str], arg(metavar="RUN_OR_DIRECTORY")]
    """The directory of a run, or one with config.json and safetensors."""
    prompt: Annotated[str, arg(metavar="TEXT", help_behavior_hint="(required)")] = ""
    """The text to continue; - reads it from the standard input."""
    tokens: Annotated[int, arg(metavar="N")] = 100
    """How many tokens to add at most."""
    temperature: Annotated[float, arg(metavar="T")] = 1.0
    """Divides the logits; 0 takes the most likely token each time."""
    top_k: Annotated[int | None, arg(metavar="K", help_behavior_hint="(default: all of them)")] = None
    """Draw from the k most likely tokens."""
    top_p: Annotated[float | None, arg(metavar="P", help_behavior_hint="(default: all of them)")] = None
    """Draw from the fewest tokens whose probabilities sum to p."""
    min_p: Annotated[float | None, arg(metavar="P", help_behavior_hint="(default: any)")] = None
    """Draw from tokens with at least this share of the highest probability."""
    greedy: bool = False
    """The same as --temperature 0."""
    beams: Annotated[int | None, arg(metavar="N", help_behavior_hint="(default: draw)")] = None
    """Search for the most likely text along this many paths instead of drawing."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Of the draws: the same seed, the same text."""
    samples: Annotated[int, arg(metavar="N")] = 1
    """How many texts, one after another, from one prompt."""
    json: bool = False
    """Print JSON when done, instead of text as it is made."""

    def run(self) -> int:
        import jax

        from dlkit.cli.setup import prepare
        from dlkit.models import Sampler

        sampler = Sampler(0.0 if self.greedy else self.temperature, self.top_k, self.top_p, self.min_p)
        with prepare():
            model, params, tokenizer, end = _read(Path(self.model))
            text = sys.stdin.read() if self.prompt == "-" else self.prompt
            ids = tokenizer.encode(text)
            if ids.size == 0:
                raise ValueError("the prompt is empty: give at least one token, --prompt TEXT")
            found = []
            for i in range(self.samples):
                key = jax.random.fold_in(jax.random.key(self.seed), i)
                found.append(self._one(model, params, tokenizer, end, text, ids, sampler, key))
        if self.json:
            say(json.dumps({"prompt": text, "samples": found}, indent=1, ensure_ascii=False))
        return 0

    def _one(
        self,
        model: Any,
        params: Any,
        tokenizer: Any,
        end: int | None,
        text: str,
        ids: np.ndarray,
        sampler: Any,
        key: Any,
    ) -> dict[str, Any]:
        import jax.numpy as jnp

        from dlkit import models

        prompt, new, shown, first = jnp.asarray(ids)[None], [], "", None
        show = not self.json
        if show:
            print(text, end="", flush=True)  # noqa: T201
        start = time.perf_counter()
        if self.beams is not None:
            best, _ = models.beam_search(model, params, prompt, self.tokens, beams=self.beams, end=end)
            new = np.asarray(best)[0, 0].tolist()
            new = new[: new.index(end)] if end in new else new
            seconds, count = time.perf_counter() - start, len(new)
        else:
            for token in models.stream(model, params, prompt, self.tokens, key=key, sampler=sampler, end=end):
                one = int(token[0])
                if one == end:
                    break
                new.append(one)
                # The two programs are compiled with the first two tokens: what follows is the speed.
                first = time.perf_counter() if len(new) == 2 else first
                if show:
                    shown = _show(tokenizer.decode(new), shown)
            seconds, count = time.perf_counter() - (first or start), len(new) - 2 if first else len(new)
        added = tokenizer.decode(new)
        rate = count / seconds if seconds > 0 and count > 0 else None
        if show:
            print(added[len(shown) :])  # noqa: T201
            how = "with compiling" if first is None else "after the first two"
            print(f"{len(new)} tokens" + (f", {rate:.0f} tokens/s {how}" if rate else ""), file=sys.stderr)  # noqa: T201
        return {"text": added, "tokens": len(new), "tokens_per_second": rate}


def _show(text: str, shown: str) -> str:
    """Print what is new in `text`; a character whose bytes are not all there yet waits."""
    whole = text.rstrip("�")
    if whole.startswith(shown):
        print(whole[len(shown) :], end="", flush=True)  # noqa: T201
        return whole
    return shown


def _read(folder: Path) -> tuple[Any, Any, Any, int | None]:
    """Model, parameters, tokenizer and the token that ends a text."""
    from dlkit.data import load_tokenizer

    if (folder / "config.json").is_file():
        from dlkit import io

        model, params, _ = io.from_hugging_face(folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] not in ("gpt2", "llama", "mistral", "qwen2", "qwen3"):
            raise ValueError(f"{folder} holds a {config['model_type']}, which does not continue text")
        end = config.get("eos_token_id")
        end = end[0] if isinstance(end, list) else end
        return model, params, load_tokenizer(folder), end
    from dlkit.cli.runs import locate, restored
    from dlkit.config.assemble import assemble

    where, config = locate(str(folder))
    parts = assemble(config)
    params, _, _ = restored(where, parts.task.model)
    return parts.task.model, params, load_tokenizer(where), None
