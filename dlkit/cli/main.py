"""Reading the command line, and turning whatever goes wrong into one message and an exit code."""

import os
import sys
from collections.abc import Sequence

from dlkit.version import __version__

__all__ = ["main"]

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

ABOUT = """Train, evaluate and look at neural networks described by a TOML file.

  dlkit train configs/digits_cnn.toml                    train; again: resume
  dlkit train configs/digits_cnn.toml train.epochs=3     with one value changed
  dlkit eval runs/digits_cnn                             accuracy on the test set
  dlkit predict runs/digits_cnn picture.png              probabilities for a picture
  dlkit generate gpt2/ --prompt "Once"                   text from a language model

Exit codes: 0 done, 1 failed, 2 wrong input or config, 130 and 143 stopped by Ctrl-C and SIGTERM (saved, resumable)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args and args[0] in ("--version", "-V", "version"):
        print(f"dlkit {__version__}")  # noqa: T201
        return OK
    try:
        return _dispatch(args)
    except SystemExit as stop:  # argument errors and --help
        return stop.code if isinstance(stop.code, int) else OK if stop.code is None else FAILED
    except KeyboardInterrupt:
        return _say("stopped", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has left, such as `head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return OK
    except Exception as error:
        if os.environ.get("DLKIT_TRACEBACK"):
            raise
        return _explain(error)


def _dispatch(args: list[str]) -> int:
    try:
        import tyro
    except ImportError:
        if args[:1] == ["doctor"]:  # the one command that must run where things are missing
            from dlkit.cli.doctor import Doctor

            return Doctor().run()
        return _say('the command line needs more packages: pip install -e ".[train]"', FAILED)
    from dlkit.cli.doctor import Doctor
    from dlkit.cli.evaluate import Eval
    from dlkit.cli.generate import Generate
    from dlkit.cli.plot import Plot
    from dlkit.cli.predict import Predict
    from dlkit.cli.summarize import Summary
    from dlkit.cli.train import Train

    commands = {
        "train": Train,
        "eval": Eval,
        "predict": Predict,
        "generate": Generate,
        "summary": Summary,
        "plot": Plot,
        "doctor": Doctor,
    }
    if not args:
        args = ["--help"]
    chosen = tyro.extras.subcommand_cli_from_dict(
        commands, prog="dlkit", description=ABOUT, args=args, config=(tyro.conf.FlagCreatePairsOff,)
    )
    return chosen.run()


def _explain(error: Exception) -> int:
    from dlkit.config.errors import ConfigError

    if isinstance(error, ConfigError):
        return _say(str(error), BAD_INPUT)
    text = str(error) or type(error).__name__
    if isinstance(error, ImportError | FileNotFoundError | PermissionError | ValueError | OSError):
        head = text
    else:
        head = f"{type(error).__name__}: {text}"
    told = [note for note in getattr(error, "__notes__", ()) if "JAX has removed its internal frames" not in note]
    notes = "".join(f"\n  {note}" for note in told)
    code = BAD_INPUT if isinstance(error, FileNotFoundError | IsADirectoryError) else FAILED
    return _say(f"{head}{notes}\n(DLKIT_TRACEBACK=1 shows where this was raised)", code)


def _say(message: str, code: int) -> int:
    print(f"dlkit: {message}", file=sys.stderr)  # noqa: T201
    return code
