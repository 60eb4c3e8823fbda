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
    tokenizer.json beside its config. An encoder-decoder (T5, seq2seq) answers the prompt instead of continuing it.
    Text appears as it is made; with --beams at the end.
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
            source = _read(Path(self.model))
            text = sys.stdin.read() if self.prompt == "-" else self.prompt
            ready, found = source.ready(text), []
            for i in range(self.samples):
                key = jax.random.fold_in(jax.random.key(self.seed), i)
                found.append(self._one(source, ready, text, sampler, key))
        if self.json:
            say(json.dumps({"prompt": text, "samples": found}, indent=1, ensure_ascii=False))
        return 0

    def _one(self, source: "Source", ready: tuple[Any, Any, np.ndarray], text: str, sampler: Any, key: Any) -> Any:
        import jax.numpy as jnp

        from dlkit import models

        (model, params, ids), tokenizer, end = ready, source.tokenizer, source.end
        prompt, new, shown, first = jnp.asarray(ids)[None], [], "", None
        show = not self.json
        if show and source.start is None:
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


@dataclass(frozen=True)
class Source:
    """A model with its parameters and tokenizer; `end` ends a text, `start` begins the answer to a prompt."""

    model: Any
    params: Any
    tokenizer: Any
    end: int | None = None
    start: int | None = None

    def ready(self, text: str) -> tuple[Any, Any, np.ndarray]:
        """The decoder, its parameters and the ids that it goes on from.

        An encoder-decoder reads the prompt, and answers from the start token on; others continue the prompt.
        """
        import jax.numpy as jnp

        from dlkit import models

        ids = self.tokenizer.encode(text)
        if ids.size == 0:
            raise ValueError("the prompt is empty: give at least one token, --prompt TEXT")
        if self.start is None:
            return self.model, self.params, ids
        if self.end is not None and ids[-1] != self.end:
            ids = np.append(ids, self.end)
        decoder = models.Conditioned(self.model)
        params = decoder.condition(self.params, jnp.asarray(ids, jnp.int32)[None])
        return decoder, params, np.array([self.start], np.int32)


def _read(folder: Path) -> Source:
    from dlkit.data import load_tokenizer

    if (folder / "config.json").is_file():
        from dlkit import io

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] not in ("gpt2", "llama", "mistral", "qwen2", "qwen3", "t5"):
            raise ValueError(f"{folder} holds a {config['model_type']}, which does not continue text")
        model, params, _ = io.from_hugging_face(folder)
        end = config.get("eos_token_id")
        end = end[0] if isinstance(end, list) else end
        start = config.get("decoder_start_token_id", 0) if config["model_type"] == "t5" else None
        return Source(model, params, load_tokenizer(folder), end, start)
    from dlkit.cli.runs import locate, restored
    from dlkit.config.errors import ConfigError
    from dlkit.config.language import language_model
    from dlkit.config.model_parts import ON_PAIRS, ON_TEXT

    where, config = locate(str(folder))
    if config.model.name not in (*ON_TEXT, *ON_PAIRS) or config.model.name == "bert":
        raise ConfigError(f"this run is of a {config.model.name}, which does not continue text")
    tokenizer = load_tokenizer(where)  # that of the run: the data may be another one here
    model: Any = language_model(config.model, config.data, tokenizer)
    params, _, _ = restored(where, model)
    if config.model.name in ON_PAIRS:
        words: Any = tokenizer
        return Source(model.body, params, words, words.end, words.start)
    return Source(model, params, tokenizer)
