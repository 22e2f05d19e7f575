"""The shipped units, judged by systemd itself, and what the pages beside them say."""

import os
import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

from logfan.config.loader import prepare
from logfan.config.settings import RabbitmqSettings, Settings
from logfan.faults import Faults
from support.command import logfan
from support.systemd import ROOT, UNITS, analyze, directives, seconds, unit_text

INSTALLED = "/opt/logfan/bin/logfan"
CONFIG = "/etc/logfan/config.toml"
EXPOSURE_TENTHS = "15"
EXIT_USAGE = 2
PAGES = "".join(one.read_text(encoding="utf-8") for one in sorted((ROOT / "systemd").glob("*.md")))


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES, re.MULTILINE | re.DOTALL)


def _write(folder: Path, name: str, text: str, drop_in: str = "") -> Path:
    """A unit as it would be installed, but for the command's path, and a drop-in beside it."""
    program = Path(sys.executable).with_name("logfan")
    unit = folder / name.replace("@.", "@a.")
    unit.write_text(text.replace(INSTALLED, str(program)))
    if drop_in:
        beside = folder / f"{unit.name}.d"
        beside.mkdir()
        (beside / "override.conf").write_text(drop_in)
    return unit


def _complaints(unit: Path) -> Sequence[str]:
    """What `systemd-analyze verify` says about this unit, and not about the machine's others."""
    run = analyze("verify", "--man=no", "--recursive-errors=no", str(unit))
    remarks = [line for line in run.stderr.splitlines() if "logfan" in line]
    return remarks or ([run.stderr] if run.returncode else [])


@pytest.mark.parametrize("name", UNITS)
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path, name: str) -> None:
    assert _complaints(_write(tmp_path, name, unit_text(name))) == []


@pytest.mark.parametrize("mistake", ["WatchdogSecs=60s", "Restart=on-trouble", "Type=notified"])
def test_systemd_would_speak_up_about_a_mistake(tmp_path: Path, mistake: str) -> None:
    text = unit_text("logfan.service").replace("[Service]\n", f"[Service]\n{mistake}\n")
    assert _complaints(_write(tmp_path, "logfan.service", text))


@pytest.mark.parametrize("name", UNITS)
def test_the_exposure_is_at_most_one_and_a_half(tmp_path: Path, name: str) -> None:
    unit = _write(tmp_path, name, unit_text(name))
    run = analyze("security", "--offline=true", f"--threshold={EXPOSURE_TENTHS}", str(unit))
    assert run.returncode == 0, run.stdout


def test_an_open_unit_would_fail_the_exposure_test(tmp_path: Path) -> None:
    text = unit_text("logfan.service").replace("ProtectSystem=strict\nProtectHome=yes\n", "")
    text = text.replace("SystemCallFilter=", "#").replace("CapabilityBoundingSet=", "#")
    unit = _write(tmp_path, "logfan.service", text)
    run = analyze("security", "--offline=true", f"--threshold={EXPOSURE_TENTHS}", str(unit))
    assert run.returncode != 0, run.stdout


@pytest.mark.parametrize("name", UNITS)
def test_faults_that_a_restart_cannot_mend_prevent_it(name: str) -> None:
    [codes] = directives(unit_text(name))["RestartPreventExitStatus"]
    assert {int(code) for code in codes.split()} == {os.EX_CONFIG, os.EX_NOPERM}


@pytest.mark.parametrize("name", UNITS)
def test_a_fault_is_the_main_process_verdict_not_the_checks(name: str) -> None:
    # systemd asks RestartPreventExitStatus= about the main process only: without the "-" a faulty
    # config would be tried again and again.
    [check] = directives(unit_text(name))["ExecStartPre"]
    assert check.startswith(f"-{INSTALLED} check ")


@pytest.mark.parametrize("name", UNITS)
def test_a_stop_has_time_for_the_drain_and_the_rest_of_the_shutdown(name: str) -> None:
    [timeout] = directives(unit_text(name))["TimeoutStopSec"]
    drain = Settings.model_validate({"sinks": {"screen": {"kind": "stdout"}}}).shutdown_timeout
    assert drain + 10 <= seconds(timeout) <= drain + 30


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("directive", ["ExecStartPre", "ExecStart"])
def test_the_unit_calls_commands_that_there_are(name: str, directive: str) -> None:
    [line] = directives(unit_text(name))[directive]
    line = line.removeprefix("-").replace("%i", "a").replace(CONFIG, str(ROOT / "config.toml"))
    program, *arguments = shlex.split(line)
    assert program == INSTALLED
    # --help is answered only where all other arguments are right.
    helped = arguments if directive == "ExecStartPre" else [*arguments, "--help"]
    run = logfan(*helped, folder=ROOT, LOGFAN_PLUGINS__DIRECTORIES="[]")
    assert run.returncode == 0, run.stderr


def test_the_template_is_the_unit_with_an_instance() -> None:
    unit = unit_text("logfan.service")
    template = unit_text("logfan@.service")
    plain = directives(
        template.replace(" --instance %i", "")
        .replace("/%i", "")
        .replace(" (%i)", "")
        # No folder within that of the other unit, which systemd removes when that stops.
        .replace("=logfan@%i", "=logfan")
    )
    added = {"EnvironmentFile"}
    assert {key: plain[key] for key in plain if key not in added} == dict(directives(unit))


def test_no_two_instances_share_a_folder() -> None:
    template = directives(unit_text("logfan@.service"))
    for directive in ("LogsDirectory", "StateDirectory", "WorkingDirectory"):
        [value] = template[directive]
        assert value.endswith("/%i"), directive
    assert template["RuntimeDirectory"] == ["logfan@%i"]


def test_a_missing_url_file_becomes_a_fault_in_words(tmp_path: Path) -> None:
    [fallback] = directives(unit_text("logfan.service"))["SetCredential"]
    name, _, text = fallback.partition(":")
    [loaded] = directives(unit_text("logfan.service"))["LoadCredential"]
    assert loaded.partition(":")[0] == name
    (tmp_path / name).write_text(text)
    with pytest.raises(Faults, match="holds no URL"):
        RabbitmqSettings(url_file=tmp_path / name).read_urls()


# What the pages say


def test_every_directive_that_the_pages_quote_exists() -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGES, flags=re.MULTILINE | re.DOTALL)
    quoted = set(re.findall(r"`([A-Z][A-Za-z]+)=", prose))
    # The last column of the hardening table, and what we say we do not use, are not in the unit.
    rows = [line for line in prose.splitlines() if line.startswith("| `") and line.count("|") == 5]
    offered = {key for row in rows for key in re.findall(r"`([A-Z]\w+)=", row.split("|")[4])}
    known = set(directives(unit_text("logfan.service")))
    assert len(rows) >= 10
    assert quoted - known <= offered | {"DynamicUser"}


def test_the_pages_hardening_table_quotes_the_units_values() -> None:
    unit = directives(unit_text("logfan.service"))
    rows = [line for line in PAGES.splitlines() if line.startswith("| `") and line.count("|") == 5]
    quoted = [pair for row in rows for pair in re.findall(r"`(\w+)=([^`]+)`", row.split("|")[1])]
    assert len(quoted) >= 10
    for key, value in quoted:
        assert value in unit[key], key


@pytest.mark.parametrize("drop_in", _blocks("ini"))
@pytest.mark.parametrize("name", UNITS)
def test_the_pages_drop_ins_fit_the_units(tmp_path: Path, name: str, drop_in: str) -> None:
    assert _complaints(_write(tmp_path, name, unit_text(name), drop_in)) == []


def test_the_pages_logrotate_is_the_packages_and_fits_shipped_config_and_units() -> None:
    shipped = (ROOT / "systemd/packages/debian/logrotate").read_text(encoding="utf-8")
    [shown] = [one for one in _blocks("text") if "postrotate" in one]
    assert shipped.partition("\n")[2] == shown
    patterns = shown.partition("{")[0].split()
    archive = tomllib.loads((ROOT / "config.toml").read_text())["sinks"]["archive"]["path"]
    for unit in UNITS:
        [folder] = directives(unit_text(unit))["WorkingDirectory"]
        here = folder.replace("%L", "/var/log").replace("%i", "a")
        for path in (f"{here}/{archive}", f"{here}/app.jsonl"):
            assert any(
                one.count("/") == path.count("/") and fnmatch(path, one) for one in patterns
            ), path
        # A plain reload fails, and logrotate with it, where the unit does not run.
        assert unit.replace("@.", "@*.") in shown.partition("try-reload-or-restart")[2]


def test_the_pages_give_enable_and_disable_no_pattern() -> None:
    # systemd takes none there: it escapes it, and exits 0 without having done anything.
    lines = re.findall(r"^\$ .*systemctl (?:enable|disable) .*$", PAGES, re.MULTILINE)
    assert len(lines) >= 4
    assert not [one for one in lines if "*" in one]


def test_a_misspelt_drop_in_would_be_found(tmp_path: Path) -> None:
    mistake = "[Service]\nReadWritePath=/srv/logs\n"
    unit = _write(tmp_path, "logfan.service", unit_text("logfan.service"), mistake)
    assert _complaints(unit)


# A file of cases for `logfan test` is no config; test_test.py runs it.
@pytest.mark.parametrize("config", [one for one in _blocks("toml") if "[[cases]]" not in one])
def test_the_pages_config_has_no_fault(tmp_path: Path, config: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(config)
    assert prepare(path, environ={}).sinks


def test_the_pages_explain_every_exit_code_and_what_systemd_does() -> None:
    rows = re.findall(r"^\| (\d+) \| .* \| (.+) \|$", PAGES, re.MULTILINE)
    assert {int(code) for code, _ in rows} == {
        os.EX_OK, EXIT_USAGE, os.EX_UNAVAILABLE, os.EX_SOFTWARE, os.EX_TEMPFAIL, os.EX_NOPERM,
        os.EX_CONFIG,
    }  # fmt: skip
    left = {int(code) for code, then in rows if then == "leaves it stopped"}
    assert left == {os.EX_CONFIG, os.EX_NOPERM}
