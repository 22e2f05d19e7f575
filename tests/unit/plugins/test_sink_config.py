"""The two ways to name a sink's options, for Python and for mypy; and defaults that are wrong."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import pytest
from click.testing import CliRunner
from pydantic import BeforeValidator, Field, ValidationError

import logfan
from logfan.cli import main
from logfan.plugins.validation import why_unusable
from support.drop_ins import add_drop_in

ConfigT = TypeVar("ConfigT", bound=logfan.SinkConfig)


class Options(logfan.SinkConfig):
    suffix: str = "!"


class Base(logfan.Sink[ConfigT], Generic[ConfigT]):
    def write(self, records: Sequence[logfan.Record]) -> None: ...


class Generically(Base[Options]):
    """By its class in brackets, by way of a class between."""


class Within(Base[Any]):
    """By a class inside."""

    class Config(logfan.SinkConfig):
        suffix: str = "?"


class Both(Base[Options]):
    """A class inside that is one of those in brackets."""

    class Config(Options):
        width: int = 80


class Below(Generically):
    """As its base."""


@pytest.mark.parametrize(
    ("cls", "config"),
    [
        (Generically, Options), (Below, Options), (Within, Within.Config), (Both, Both.Config),
        (Base, logfan.SinkConfig),
    ],
)  # fmt: skip
def test_a_sink_knows_its_options_in_either_form(
    cls: type[logfan.Sink], config: type[logfan.SinkConfig]
) -> None:
    assert cls.Config is config
    assert why_unusable(cls) is None
    assert cls(config(), name="loud").config == config()


def wrong_name() -> object:
    class Wrong(logfan.Sink["Options"]):  # written in quotes it is not known yet
        pass

    return Wrong


def no_config() -> object:
    class Wrong(logfan.Sink[int]):  # type: ignore[type-var]
        pass

    return Wrong


def two_configs() -> object:
    class Wrong(logfan.Sink[Options]):
        class Config(logfan.SinkConfig):
            pass

    return Wrong


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (wrong_name, r"ForwardRef\('Options'.*\) in Sink\[\]; put a subclass of logfan.SinkConfig"),
        (no_config, r"<class 'int'> in Sink\[\]; put a subclass of logfan.SinkConfig"),
        (two_configs, "names Options in .* a Config of its own .* leave one of them out"),
    ],
)
def test_options_that_cannot_be_are_named(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        make()


PLUGIN = """
from collections.abc import Sequence
import logfan

class Options(logfan.SinkConfig):
    suffix: str = "!"

class ByBrackets(logfan.Sink[Options]):
    def write(self, records: Sequence[logfan.Record]) -> None:
        reveal_type(self.config)
        print(self.config.sufix)

class ByClass(logfan.Sink):
    class Config(logfan.SinkConfig):
        suffix: str = "!"

    def write(self, records: Sequence[logfan.Record]) -> None:
        reveal_type(self.config)
        print(self.config.suffix)

ByBrackets(Options())
ByClass(ByClass.Config())
ByBrackets(ByClass.Config())
"""


@pytest.mark.slow
def test_mypy_knows_the_config_of_the_brackets_and_takes_the_class_inside(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "plugin.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    places = {line.split(":")[1]: line for line in done.stdout.splitlines() if "hint" not in line}
    assert {number for number, line in places.items() if ": error:" in line} == {"11", "23"}
    assert 'Revealed type is "plugin.Options"' in places["10"]
    assert '"Options" has no attribute "sufix"' in places["11"]
    assert 'Revealed type is "Any"' in places["18"]
    assert '"ByBrackets" has incompatible type' in places["23"]


class Numbers(logfan.SinkConfig):
    timeout: Annotated[logfan.Duration, Field(gt=0)] = 5
    pause: logfan.Duration | None = 2.5
    buffer: logfan.Size = 65536


def test_a_default_is_written_as_the_code_sees_it_and_a_key_with_its_unit() -> None:
    assert Numbers() == Numbers(timeout="5s", pause="2500ms", buffer="64KiB")
    for wrong in ({"timeout": 5}, {"pause": 2.5}, {"buffer": 65536}):
        with pytest.raises(ValidationError):
            Numbers.model_validate(wrong)


class Places(logfan.SinkConfig):
    file: Path
    spare: Annotated[Path | None, BeforeValidator(lambda given: given or None)] = None
    here: Path = Path()


def test_a_path_that_is_empty_is_a_fault_unless_the_sink_makes_something_of_it() -> None:
    assert Places(file="a", spare="").spare is None
    with pytest.raises(ValidationError, match="must not be empty"):
        Places(file="")


BROKEN = """
import logfan
from typing import Annotated
from pydantic import Field

class Config(logfan.SinkConfig):
    size: Annotated[int, Field(ge=1)] = 0
    timeout: Annotated[logfan.Duration, Field(gt=0)] = -1.0
    to: str

class Mail(logfan.Sink[Config]):
    "Mail."
    def write(self, records): ...

@logfan.hookimpl
def register_sinks(register):
    register("mail", Mail)
"""


def test_a_default_that_breaks_its_own_rule_is_a_fault_that_names_whose_it_is(
    tmp_path: Path,
) -> None:
    add_drop_in(tmp_path, "mail", BROKEN)
    config = tmp_path / "config.toml"
    head = f'[plugins]\ndirectories = ["{tmp_path}/plugins"]\n[sinks.post]\nkind = "mail"\n'
    config.write_text(head)
    done = CliRunner().invoke(main, ["check", "--config", str(config)])
    assert done.exit_code == 78
    own = "; that is the sink's own default, a mistake of its author: set the key"
    assert f"sinks.post.size = 0: must be at least 1{own}" in done.output
    assert f"sinks.post.timeout = -1.0: must be more than 0{own}" in done.output.replace(
        "more than 0.0", "more than 0"
    )
    assert "sinks.post.to: is missing\n" in done.output
    config.write_text(f'{head}size = 1\ntimeout = "1s"\nto = "a"\n')
    assert CliRunner().invoke(main, ["check", "--config", str(config)]).exit_code == 0
