"""Reading a configuration: what is right is read exactly, and whatever is wrong is one ConfigError that helps."""

import time
import tomllib
import tracemalloc

import numpy as np
import pytest

from dlkit.config import Config, ConfigError, diff, dump, load, parse
from dlkit.config.toml import dumps

GOOD = """
seed = 1
metrics = ["accuracy", { name = "top_k", k = 3 }]

[data]
name = "digits"

[model]
name = "mlp"
widths = [64, 32, 10]

[loss]
name = "cross_entropy"

[optimizer]
name = "adam"
learning_rate = 1e-3
schedule = { name = "cosine", warmup = 0.1 }

[train]
epochs = 3
batch_size = 32

[train.early_stopping]
patience = 4
"""


def error_of(text: str = GOOD, *overrides: str) -> str:
    with pytest.raises(ConfigError) as info:
        parse(text, overrides, source="run.toml")
    return str(info.value)


def test_values_and_overrides():
    config = parse(
        GOOD,
        ["train.epochs=7", "optimizer.schedule.end=0.5", "run.name=a_b", "data.test=300",
         "metrics.1.k=2", "model.widths=[64, 10]", "model.activation=tanh", "train.early_stopping.restore_best=false"],
    )  # fmt: skip
    assert (config.train.epochs, config.run.name, config.data.test) == (7, "a_b", 300)
    assert config.optimizer.schedule.end == 0.5
    assert config.optimizer.schedule.warmup == 0.1
    assert config.metrics[1].k == 2
    assert config.model.widths == (64, 10)
    assert config.model.activation == "tanh"
    assert config.train.early_stopping.restore_best is False
    assert hash(config) == hash(parse(dump(config)))


@pytest.mark.parametrize(
    ("text", "override", "parts"),
    [
        (GOOD.replace("learning_rate", "lerning_rate"), None,
         ["run.toml:17: optimizer.lerning_rate", "[optimizer]", "'learning_rate'"]),
        (GOOD.replace("learning_rate", "lr"), None, ["optimizer.lr", "did you mean 'learning_rate'"]),
        (GOOD.replace("warmup", "warmpu"), None, ["optimizer.schedule.warmpu", "[optimizer.schedule]", "'warmup'"]),
        (GOOD.replace("[train.early_stopping]", "[train.early_stoping]"), None,
         ["run.toml:24", "train.early_stoping", "'early_stopping'"]),
        (GOOD.replace("seed", "sed"), None, ["run.toml:2: sed", "'seed'"]),
        (GOOD, "train.epoch=3", ["command line: train.epoch", "[train]", "'epochs'"]),
        (GOOD, "optimizer.schedule.and=3", ["command line: optimizer.schedule.and", "'end'"]),
        (GOOD, "epochs=3", ["command line: epochs", "train.epochs"]),
        (GOOD, "train.early_stopping.patince=3", ["train.early_stopping.patince", "'patience'"]),
        (GOOD, "metrics.1.kk=3", ["metrics[1].kk", "'k'"]),
        (GOOD, "optimizer.name=adma", ["optimizer", "'adma'", "did you mean 'adam'"]),
        (GOOD, "metrics=['acuracy']", ["metrics[0]", "did you mean 'accuracy'"]),
        (GOOD, "model.activation=rel", ["expected one of relu", "'relu'"]),
    ],
)  # fmt: skip
def test_a_misspelt_word_is_named_with_its_section_and_the_nearest_right_one(text, override, parts):
    message = error_of(text, *([override] if override else []))
    for part in parts:
        assert part in message
    assert "missing" not in message  # one mistake, one message


@pytest.mark.parametrize(
    ("override", "expected", "given"),
    [
        ("train.epochs=three", "a whole number", 'the string "three"'),
        ("train.epochs=2.0", "a whole number", "the float 2.0"),
        ("train.epochs=true", "a whole number", "the boolean true"),
        ("train.epochs=0", "greater than or equal to 1", "the integer 0"),
        ("optimizer.learning_rate='1e-3'", "a number", 'the string "1e-3"'),
        ("optimizer.learning_rate=nan", "a finite number", "nan"),
        ("optimizer.b1=1.0", "less than 1", "1.0"),
        ("train.plots=1", "true or false", "the integer 1"),
        ("model.widths=64", "a list", "the integer 64"),
        ("model.widths=[64]", "at least 2 entries", "(64,)"),
        ("model.widths=[64, 'x']", "a whole number", 'the string "x"'),
        ("train=3", "a table", "the integer 3"),
        ("data.test=1.5", "less than 1", "1.5"),
        ("data.test=many", "a number", '"many"'),
        ("run.name=../up", "not allowed", '"../up"'),
        ("seed=-1", "greater than or equal to 0", "-1"),
    ],
)
def test_a_wrong_value_says_what_was_expected_and_what_was_given(override, expected, given):
    message = error_of(GOOD, override)
    assert expected in message
    assert given in message
    assert override.split("=")[0] in message


def test_an_override_is_text_where_text_is_wanted():
    for text in ("2024", "1e3", "true", "2024-01-01", "007"):
        assert parse(GOOD, [f"run.name={text}"]).run.name == text
    assert parse(GOOD, ["run.directory=3"]).run.directory == "3"
    assert "a string" in error_of(GOOD.replace("[data]", "[run]\nname = 2024\n[data]"))  # a file says what it means


def test_what_is_allowed_is_said_once():
    message = error_of(GOOD, "run.name=a b")
    assert "letters" in message
    assert "'_'" in message
    hinge = error_of(GOOD, "loss.name=hinge")
    assert "did you mean 'multiclass_hinge'" in hinge
    for message in (hinge, error_of(GOOD, "loss.name=zzz"), error_of(GOOD, "model.activation=zzz")):
        assert message.count("expected one of") == 1
        assert "known are" not in message
    assert error_of(GOOD, "loss.name=zzz").count("poisson_nll") == 1


def test_what_is_missing_and_where():
    assert (
        error_of(GOOD.replace("widths = [64, 32, 10]", ""))
        == "run.toml:8: model.widths: missing: this key has no default"
    )
    assert "loss: missing" in error_of(GOOD.replace("[loss]", "").replace('name = "cross_entropy"', ""))
    with pytest.raises(ConfigError, match="cannot read the config"):
        load("no/such/file.toml")


def test_the_file_is_bounded_and_text(tmp_path):
    path = tmp_path / "c.toml"
    for content, word in [(b"a = '\xff'", "UTF-8"), (b"#" * 300_000, "256 KiB"), (b"a = [", "not valid TOML")]:
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=word) as info:
            load(path)
        assert "c.toml" in str(info.value)
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path)


def bad_configs(rng: np.random.Generator, n: int):
    """Bad configurations: hostile ones first, then good ones with one thing spoilt at random."""
    yield from (
        "x = " + "[" * 5000, "a" + ".a" * 3000 + " = 1", "[" + "a." * 3000 + "a]", "x = " + "9" * 5000, "x = 1e999",
        "x = " + "{a=" * 2000, '_target_ = "os.system"', "model = '!!python/object/apply:os.system [ls]'",
        'seed = "${env:HOME}"', "seed = nan", "seed = 1" + "0" * 30, "[data]\n[data]", "a = 1\na = 2", "\x00", "",
        "[[data]]\nname = 'digits'", "data = 1979-05-27", "x = 1979-99-99", "a = '''", "é = 1", "[optimizer\n",
        "x = [" + "{}," * 60_000 + "]", "\n" * 1000 + "x", "model.name = 'mlp'\n[model]", "seed = 0x" + "f" * 3000,
    )  # fmt: skip
    lines = [line for line in GOOD.splitlines() if line]
    junk = ['"text"', "[]", "{}", "-1", "1e400", "nan", "-inf", "true", "2.5", "[[1]]", "99999999999999999999",
            "1979-05-27T07:32:00Z", '{ __class__ = "os" }', '"a\\u0000b"', "{ name = 3 }",
            "{ name = 'none' }"]  # fmt: skip
    made = 25
    while made < n:
        spoilt = list(lines)
        i = int(rng.integers(len(spoilt)))
        line = spoilt[i]
        how = rng.integers(4)
        if how == 0 and "=" in line:
            spoilt[i] = f"{line.split('=')[0]}= {rng.choice(junk)}"
        elif how == 1:
            at = int(rng.integers(max(1, len(line.split("=")[0].rstrip()))))
            spoilt[i] = f"{line[:at]}{rng.choice(list('qxz_0'))}{line[at:]}"
        elif how == 2:
            del spoilt[i]
        else:
            spoilt[i] = line[: int(rng.integers(1, len(line)))]
        text = "\n".join(spoilt)
        try:
            parse(text)
        except ConfigError:
            made += 1
            yield text


def test_300_bad_configs_give_only_config_errors_quickly():
    slowest = 0.0
    for text in bad_configs(np.random.default_rng(0), 300):
        started = time.process_time()
        message = error_of(text)
        slowest = max(slowest, time.process_time() - started)
        assert message
        assert len(message) < 5000
    assert slowest < 0.25  # of CPU time, with the type checks of the tests; 50 ms without


def test_a_bad_config_takes_little_memory():
    tracemalloc.start()
    error_of("x = " + "[" * 5000)
    error_of("x = [" + "1," * 60_000 + "]")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_nothing_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("NAME", "leaked")
    assert parse(GOOD, ["run.directory=${NAME}"]).run.directory == "${NAME}"


@pytest.mark.parametrize("override", ["noequals", "=3", "a..b=1", "a b=1", "seed.x=1", "metrics.9.k=1", "x.y.z=1"])
def test_bad_overrides(override):
    assert "command line" in error_of(GOOD, override)


def test_an_override_cannot_smuggle_a_second_key():
    assert "run.directory" in error_of(GOOD, "run.directory='a'\nseed = 9")


def test_resolved_config_reads_back_equal_and_is_complete():
    config = parse(GOOD, ["optimizer.clip_norm=1", "regularizer.l2=1e-05", "run.directory='a \"b\"\\\\ é'"])
    text = dump(config)
    assert parse(text) == config
    assert dump(parse(text)) == text
    assert "eps = 1e-08" in text  # a default


def test_diff_names_each_change():
    one, two = parse(GOOD), parse(GOOD, ["train.epochs=9", "optimizer.clip_norm=1.0", "model.widths=[64, 10]"])
    assert diff(one, one) == []
    changes = {"model.widths: [64, 32, 10] -> [64, 10]", "optimizer.clip_norm: unset -> 1.0", "train.epochs: 3 -> 9"}
    assert set(diff(one, two)) == changes


def test_toml_text_is_exact():
    rng = np.random.default_rng(0)
    floats = [float(x) for x in rng.normal(size=50) * 10.0 ** rng.integers(-300, 300, 50)]
    data = {
        "floats": [*floats, 0.1, 1e16, 1e-7, 5e-324, 1.0, -0.0],
        "text": 'quote " backslash \\ tab \t newline \n bell \x07 del \x7f é 漢',
        "odd key.": 1,
        "": True,
        "tables": [{"a": 1, "b": [{"c": "x"}]}, {}],
        "inner": {"x": 1, "deep er": {"y": -3}},
        "empty": {},
    }
    assert tomllib.loads(dumps(data)) == data
    assert repr(tomllib.loads(dumps(data))["floats"]) == repr(data["floats"])
    with pytest.raises(TypeError, match="TOML has no form"):
        dumps({"x": np.float32(1)})


def test_a_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        parse(GOOD).seed = 3
    assert isinstance(parse(GOOD), Config)
