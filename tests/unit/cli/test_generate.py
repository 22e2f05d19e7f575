"""`logfan generate`: what it writes works as it stands, in a new environment."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from logfan.cli import main
from support.command import logfan
from support.fresh_venv import FreshVenv
from support.users import ordinary_user


def generate(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["generate", *arguments])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.long
def test_a_plugin_works_as_it_is_written(tmp_path: Path) -> None:
    """As one with another name does in the guide's ten minutes."""
    venv = FreshVenv(tmp_path)
    written = venv.shell("logfan generate plugin mail-out", tmp_path)
    for line in [line.strip() for line in written.partition("next:\n")[2].splitlines()]:
        shown = venv.shell(line, tmp_path)
        if line.startswith("pytest"):
            assert " passed, 8 skipped, 8 warnings" in shown
            assert "break_it for 'away' in TestMailOutSink, or say why not" in shown
    assert shown.startswith("mail-out, from logfan-mail-out 0.1.0 (logfan_mail_out)\n")
    assert "path  path, required\n    The file that records are appended to;" in shown
    folder = tmp_path / "logfan-mail-out"
    assert "Success" in venv.shell("mypy --strict .", folder)
    readme = (folder / "README.md").read_text()
    (tmp_path / "config.toml").write_text(readme.split("```toml\n")[1].split("```")[0])
    venv.shell("logfan check", tmp_path)
    venv.shell("echo hello | logfan try --sink example", tmp_path)
    assert '"body":"hello"' in (tmp_path / "records.jsonl").read_text()


@pytest.mark.parametrize(
    ("name", "module", "title"),
    [("mail_out", "mail_out", "MailOut"), ("s3-2", "s3_2", "S32"), ("class", "class", "Class")],
)
def test_a_module_and_a_class_are_named_after_the_kind(name: str, module: str, title: str) -> None:
    done = generate("plugin", name, "--folder", "here")
    assert done.exit_code == 0
    text = Path(f"here/logfan_{module}.py").read_text()
    assert f"class {title}Sink(logfan.Sink[{title}Config]):" in text
    assert f'register("{name}", {title}Sink)' in text
    compile(text, "sink", "exec")
    compile(Path(f"here/tests/test_{module}.py").read_text(), "test", "exec")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("My Sink", 'did you mean "my-sink"?'), ("2fast", 'did you mean "fast"?'),
        ("a--b", 'did you mean "a-b"?'), ("trailing-", 'did you mean "trailing"?'),
        ("../x", 'did you mean "x"?'), ("é", "begins with a letter"), ("", "begins with a letter"),
        ("file", '(logfan_sinks.file) has the kind "file" already'),
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_is_explained(name: str, why: str) -> None:
    done = generate("plugin", name)
    assert done.exit_code == 2
    assert why in done.output
    assert list(Path().iterdir()) == []


def test_what_is_there_is_never_overwritten() -> None:
    Path("here/tests").mkdir(parents=True)
    Path("here/notes").write_text("mine")
    mine = Path("here/tests/test_shout.py")
    mine.write_text("mine")
    done = generate("plugin", "shout", "--folder", "here")
    assert done.exit_code == 2
    assert "here/tests/test_shout.py is there already; nothing was written" in done.output
    assert mine.read_text() == "mine"
    assert not Path("here/README.md").exists()
    mine.unlink()
    assert generate("plugin", "shout", "--folder", "here").exit_code == 0


def test_a_folder_that_cannot_be_is_explained() -> None:
    Path("here").write_text("a file")
    done = generate("plugin", "shout", "--folder", "here/below")
    assert done.exit_code == 2
    assert "not a directory" in done.output


def test_a_folder_that_may_not_be_entered_is_explained() -> None:
    generate("plugin", "shout", "--folder", "first")  # all is imported that may not be read below
    Path("closed").mkdir(0)
    with ordinary_user():
        done = generate("plugin", "shout", "--folder", "closed/below")
    assert done.exit_code == 2
    assert "permission denied" in done.output


def test_where_no_config_is_found_the_fault_names_the_command_that_writes_one(
    tmp_path: Path,
) -> None:
    lacking = logfan("check", folder=tmp_path)
    assert lacking.returncode == 78
    assert "`logfan generate config > config.toml` writes one" in lacking.stderr
    (tmp_path / "config.toml").write_text(logfan("generate", "config").stdout)
    assert logfan("check", folder=tmp_path).returncode == 0
