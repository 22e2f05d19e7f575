"""Plugins found: installed ones, drop-ins, disabled ones, and how each kind is shown."""

from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from logfan.cli import main
from logfan.plugins.discovery import discover

SINK = '''
import logfan
from pydantic import BaseModel, Field

class Proxy(BaseModel):
    """A way round."""
    host: str
    port: int = 3128

class Mail(logfan.Sink):
    """Send each record by mail.

    Slowly.
    """

    class Config(logfan.SinkConfig):
        to: str
        """The address."""
        timeout: logfan.Duration = 90.0
        """How long to wait."""
        size: logfan.Size = 1048576
        attempts: int = 3
        proxy: Proxy | None = None
        copies: tuple[str, ...] = ()
        marks: dict[str, str] = Field(default_factory=dict)

    def write(self, records): pass

@logfan.hookimpl
def register_sinks(register):
    register("mail", Mail)
'''

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lay a distribution with one entry point into a folder on sys.path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def one(distribution: str, point: str, module: str, text: str = SINK) -> None:
        info = site / f"{distribution}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[logfan]\n{point} = {module}\n")
        (site / f"{module}.py").write_text(text)

    return one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o755)
    return plugins


def sinks(tmp_path: Path, *arguments: str) -> Result:
    """`logfan sinks` with a config that names the drop-in folder."""
    config = tmp_path / "config.toml"
    config.write_text(f'[plugins]\ndirectories = ["{tmp_path}/plugins"]\n')
    return CliRunner().invoke(main, ["sinks", "--config", str(config), *arguments])


def test_the_built_ins_are_found_like_anyones() -> None:
    discovered = discover([], [])
    assert discovered.faults == []
    assert {"file", "stdout", "metrics"} <= discovered.kinds.keys()
    assert discovered.kinds["file"].origin.startswith("logfan ")
    assert discovered.kinds["file"].origin.endswith("(logfan_sinks.file)")


def test_each_entry_point_of_ours_brings_the_one_kind_of_its_name() -> None:
    points = [point for point in distribution("logfan").entry_points if point.group == "logfan"]
    brought: dict[str, list[str]] = {point.name: [] for point in points}
    for point in points:
        module = point.load()
        assert not hasattr(module, "register_transforms")
        module.register_sinks(lambda kind, _, kinds=brought[point.name]: kinds.append(kind))
    assert brought == {name: [name] for name in brought}


def test_of_our_sinks_those_that_are_not_used_are_known_by_name(folder: Path) -> None:
    (folder / "mail.py").write_text(SINK)
    discovered = discover([folder], ["syslog"], {"file", "syslog"})
    assert discovered.faults == []
    assert discovered.kinds.keys() == {"file", "mail"}
    assert {"file", "kafka", "mail"} <= set(discovered.known)
    assert "syslog" not in discovered.known


def test_of_two_with_one_kind_both_are_named_where_ours_is_not_used(
    install: Install, folder: Path
) -> None:
    install("a-mail", "mail", "early_mail", SINK.replace('"mail"', '"kafka"'))
    (folder / "mine.py").write_text(SINK.replace('"mail"', '"sqlite"'))
    discovered = discover([folder], [], {"file"})
    assert discovered.kinds["kafka"].origin == "a-mail 1.2 (early_mail)"
    ours, mine = discovered.faults
    assert ours.place.endswith("(logfan_sinks.kafka)")
    assert 'claims the kind "kafka", which a-mail 1.2 (early_mail) has already' in ours.problem
    assert mine.place == str(folder / "mine.py")
    assert "(logfan_sinks.sqlite) has already" in mine.problem


def test_an_installed_plugin_is_found_with_its_distribution(install: Install) -> None:
    install("some-mail", "mail", "found_mail")
    assert discover([], []).kinds["mail"].origin == "some-mail 1.2 (found_mail)"


def test_of_two_distributions_with_one_kind_both_are_named(install: Install) -> None:
    install("a-mail", "mail", "first_mail")
    install("b-mail", "post", "second_mail")
    (fault,) = discover([], []).faults
    assert fault.place == "b-mail 1.2 (second_mail)"
    assert "a-mail 1.2 (first_mail)" in fault.problem
    assert "plugins.disabled" in fault.problem


@pytest.mark.parametrize("name", ["b-mail", "post"])
def test_a_distribution_or_an_entry_point_can_be_disabled(install: Install, name: str) -> None:
    install("a-mail", "mail", "one_mail")
    install("b-mail", "post", "other_mail", "raise SystemExit('was run')\n")
    discovered = discover([], [name])
    assert discovered.faults == []
    assert discovered.kinds["mail"].origin == "a-mail 1.2 (one_mail)"


def test_a_built_in_can_be_disabled_and_its_kind_taken_over(folder: Path) -> None:
    (folder / "mine.py").write_text(SINK.replace('"mail"', '"file"'))
    discovered = discover([folder], ["file"])
    assert discovered.faults == []
    assert discovered.kinds["file"].origin == str(folder / "mine.py")


def test_a_name_that_disables_nothing_is_a_fault_with_the_near_miss(folder: Path) -> None:
    (folder / "mail.py").write_text(SINK)
    (fault,) = discover([folder], ["mial"]).faults
    assert fault.place == "plugins.disabled"
    assert fault.value == '"mial"'
    assert 'did you mean "mail"?' in fault.problem


def test_an_installed_plugin_that_fails_names_its_distribution_and_line(install: Install) -> None:
    install("torn", "torn", "torn_plugin", "import logfan\n\nraise OSError('no disk')\n")
    (fault,) = discover([], []).faults
    assert fault.place == "torn 1.2 (torn_plugin)"
    assert "OSError: no disk" in fault.problem
    assert fault.problem.endswith("torn_plugin.py, line 3)")


def test_an_entry_point_to_a_module_that_is_not_there_is_reported(
    install: Install, tmp_path: Path
) -> None:
    install("gone", "gone", "gone_plugin")
    (tmp_path / "site/gone_plugin.py").unlink()
    (fault,) = discover([], []).faults
    assert fault.place == "gone 1.2 (gone_plugin)"
    assert "No module named 'gone_plugin'" in fault.problem


def test_folders_are_taken_in_their_order_and_each_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir(mode=0o755)
        (tmp_path / name / "mail.py").write_text(SINK)
    one, two = tmp_path / "one", tmp_path / "two"
    discovered = discover([two, one, two], [])
    assert discovered.kinds["mail"].origin == str(two / "mail.py")
    assert [fault.place for fault in discovered.faults] == [str(one / "mail.py")]


def test_a_dataclass_in_a_drop_in_knows_its_module(folder: Path) -> None:
    text = "from __future__ import annotations\nimport dataclasses\n" + SINK
    text += "\n@dataclasses.dataclass(slots=True)\nclass Point:\n    x: int\n"
    (folder / "mail.py").write_text(text)
    assert discover([folder], []).faults == []


def test_sinks_lists_kinds_with_where_each_comes_from(tmp_path: Path, folder: Path) -> None:
    (folder / "mail.py").write_text(SINK)
    result = sinks(tmp_path)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("mail"))
    assert lines[at].endswith("Send each record by mail.")
    assert lines[at + 1].strip() == f"from {folder}/mail.py"
    assert "(logfan_sinks.file)" in result.stdout


def test_sinks_shows_one_kinds_options_as_they_are_written(tmp_path: Path, folder: Path) -> None:
    (folder / "mail.py").write_text(SINK)
    shown = sinks(tmp_path, "mail").stdout
    for line in (
        "to  string, required", "    The address.", 'timeout  duration, default "90s"',
        'size  size, default "1MiB"', "attempts  integer, default 3",
        "proxy  table, default none", "proxy.host  string, required",
        "proxy.port  integer, default 3128", "copies  list of strings, default empty",
        "marks  table, default empty",
        "required  boolean, default true", 'batch.max_bytes  size, default "8MiB"',
    ):  # fmt: skip
        assert line in shown.splitlines()


def test_sinks_shows_an_example_that_check_accepts(tmp_path: Path, folder: Path) -> None:
    (folder / "mail.py").write_text(SINK)
    for kind in ("mail", "file", "stdout"):
        shown = sinks(tmp_path, kind).stdout
        example = shown[shown.index("[sinks.") :].partition("\n\n")[0]
        config = tmp_path / f"{kind}.toml"
        config.write_text(f'[plugins]\ndirectories = ["{folder}"]\n{example}\n')
        result = CliRunner().invoke(main, ["check", "--config", str(config)])
        assert result.exit_code == 0, f"{example}\n{result.output}"


def test_sinks_with_a_faulty_plugin_lists_the_others_and_exits_78(
    tmp_path: Path, folder: Path
) -> None:
    (folder / "bad.py").write_text("import nowhere_at_all\n")
    result = sinks(tmp_path)
    assert result.exit_code == 78
    assert "(logfan_sinks.file)" in result.stdout
    assert f"{folder}/bad.py: cannot be imported" in result.stderr


def test_sinks_of_an_unknown_kind_says_the_near_one(tmp_path: Path) -> None:
    result = sinks(tmp_path, "flie")
    assert result.exit_code == 2
    assert 'did you mean "file"?' in result.stderr


TRANSFORM = '''
import logfan

class Stamp(logfan.Transform):
    """Put a suffix behind each body."""

    class Config(logfan.TransformConfig):
        suffix: str
        """What is put behind."""

    def apply(self, records): return records

@logfan.hookimpl
def register_transforms(register):
    register("stamp", Stamp)
'''


def test_transforms_are_found_as_sinks_are(install: Install, folder: Path) -> None:
    install("some-stamp", "stamp", "found_stamp", TRANSFORM)
    text = SINK + TRANSFORM.replace('"stamp"', '"mail"')  # names of sinks are another matter
    (folder / "both.py").write_text(text)
    discovered = discover([folder], [])
    assert discovered.faults == []
    assert discovered.transforms["stamp"].origin == "some-stamp 1.2 (found_stamp)"
    assert discovered.transforms["mail"].origin == str(folder / "both.py")
    assert discovered.kinds["mail"].origin == str(folder / "both.py")
    assert discover([], ["some-stamp"]).transforms == {}


def test_of_two_with_one_transform_both_are_named(install: Install, folder: Path) -> None:
    install("some-stamp", "stamp", "taken_stamp", TRANSFORM)
    (folder / "stamp.py").write_text(TRANSFORM)
    (fault,) = discover([folder], []).faults
    assert fault.place == f"{folder}/stamp.py"
    assert 'claims the transform "stamp", which some-stamp 1.2 (taken_stamp) has' in fault.problem


def test_sinks_lists_transforms_and_shows_the_options_of_one(tmp_path: Path, folder: Path) -> None:
    assert "transforms" not in sinks(tmp_path).stdout
    (folder / "stamp.py").write_text(TRANSFORM)
    listed = sinks(tmp_path).stdout.partition("\ntransforms\n")[2]
    assert listed.splitlines() == [
        "stamp  Put a suffix behind each body.", f"       from {folder}/stamp.py",
    ]  # fmt: skip
    shown = sinks(tmp_path, "stamp").stdout.splitlines()
    assert shown[0] == f"stamp, from {folder}/stamp.py"
    assert 'transforms = [{ kind = "stamp", suffix = "…" }]' in shown
    assert shown[-2:] == ["suffix  string, required", "    What is put behind."]
    assert 'did you mean "stamp"?' in sinks(tmp_path, "stmap").stderr
