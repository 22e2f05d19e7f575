"""The JSON schema of config.toml: other people's tools take every config of the pages by it, and
point at a mistyped key."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.cli import main
from support.drop_ins import add_drop_in

ROOT = Path(__file__).parents[3]
PAGES = [
    path
    for folder in (".", "daemon", "daemon/docs", "plugins", "plugins/docs", "systemd")
    for path in sorted((ROOT / folder).glob("*.md"))
]
SOUND = """
[rabbitmq]
heartbeat = "30s"
[http]
listen = "127.0.0.1:9464"
[sinks.archive]
kind = "file"
path = "app.log"
where = { level = ["error"] }
rotate = { every = "1d" }
[sinks.numbers]
kind = "metrics"
counters = [{ name = "lines", labels = { level = "level" } }]
"""
WRONG = {
    "a key of the host": ('heartbeat = "30s"', 'hartbeat = "30s"', "hartbeat"),
    "a key of a sink": ('path = "app.log"', 'paht = "app.log"', "paht"),
    "a key of a table of a sink": ("every", "evry", "evry"),
    "a key of another kind": ('path = "app.log"', 'path = "a"\nindex = "b"', "index"),
    "no such kind": ('"file"', '"fle"', "fle"),
    "a duration without a unit": ('"30s"', '"30"', "heartbeat"),
    "a duration as a number": ('"30s"', "30", "heartbeat"),
    "a missing key": ('path = "app.log"\n', "", "path"),
}


def taplo(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("taplo")), *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)


def check(schema: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema)]
    return subprocess.run(
        [*command, *map(str, files)], check=False, capture_output=True, text=True, timeout=90
    )


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `logfan generate schema` prints it."""
    result = CliRunner().invoke(main, ["generate", "schema"])
    assert result.exit_code == 0, result.output
    file = tmp_path_factory.mktemp("schema") / "config.schema.json"
    file.write_text(result.stdout)
    return file


def configs() -> dict[str, str]:
    """The blocks of all pages that are configs of the kinds that are shipped."""
    found = {"config.toml": (ROOT / "config.toml").read_text()}
    kinds = {path.stem for path in (ROOT / "plugins/docs").glob("*.md")}
    for page in PAGES:
        blocks = re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
        for number, block in enumerate(blocks):
            table = tomllib.loads(block)
            sinks = table.get("sinks", {}).values()
            if "cases" not in table and {sink["kind"] for sink in sinks} <= kinds:
                # What the reader shall fill in.
                found[f"{page.parent.name}-{page.stem}-{number}.toml"] = block.replace("…", "any")
    return found


def test_every_config_of_the_pages_is_taken(schema: Path, tmp_path: Path) -> None:
    files = []
    for name, text in configs().items():
        files.append(tmp_path / name)
        files[-1].write_text(text)
    assert len(files) > 20
    files.append(tmp_path / "sound.toml")
    files[-1].write_text(SOUND)
    checked = check(schema, *files)
    assert checked.returncode == 0, checked.stdout
    linted = taplo("lint", "--schema", schema.as_uri(), *map(str, files))
    assert linted.returncode == 0, linted.stderr


def test_each_mistake_is_pointed_at(schema: Path, tmp_path: Path) -> None:
    files = {tmp_path / f"{case}.toml": named for case, (_, _, named) in WRONG.items()}
    for file, (before, after, _) in zip(files, WRONG.values(), strict=True):
        file.write_text(SOUND.replace(before, after, 1))
    checked = check(schema, *files)
    assert checked.returncode == 1
    for file, named in files.items():
        assert re.search(rf"{re.escape(str(file))}::.*{named}", checked.stdout), file
        linted = taplo("lint", "--schema", schema.as_uri(), str(file))
        assert linted.returncode == 1, file
        assert named in linted.stderr, file


def test_it_is_a_schema_with_a_meaning_for_each_key_of_a_sink(schema: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--check-metaschema", str(schema)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout
    keys = json.loads(schema.read_text())["$defs"]["sink file"]["properties"]
    assert all(keys[key].get("description") for key in keys if key != "kind")


def test_a_drop_in_is_in_it(tmp_path: Path) -> None:
    add_drop_in(
        tmp_path,
        "shout",
        "import logfan\n\nclass Shout(logfan.Sink):\n    class Config(logfan.SinkConfig):\n"
        "        suffix: str = '!'\n\n    def write(self, records):\n        pass\n\n"
        "class Stamp(logfan.Transform):\n    class Config(logfan.TransformConfig):\n"
        "        with_what: str = ''\n\n    def apply(self, records):\n        return records\n\n"
        "@logfan.hookimpl\ndef register_sinks(register):\n    register('shout', Shout)\n\n"
        "@logfan.hookimpl\ndef register_transforms(register):\n    register('stamp', Stamp)\n",
    )
    config = tmp_path / "config.toml"
    config.write_text(
        f'[plugins]\ndirectories = ["{tmp_path}/plugins"]\n[sinks.loud]\nkind = "shout"\n'
        'suffix = "?"\ntransforms = [{ kind = "stamp", with_what = "x" }]\n'
    )
    made = CliRunner().invoke(main, ["generate", "schema", "--config", str(config)])
    schema = tmp_path / "schema.json"
    schema.write_text(made.stdout)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(config.read_text().replace("with_what", "with_that"))
    checked = check(schema, config, wrong)
    assert f"{wrong}::" in checked.stdout
    assert "with_that" in checked.stdout
    assert f"{config}::" not in checked.stdout
