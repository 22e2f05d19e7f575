"""The doctor, run within the test: what each check finds for a config."""

from pathlib import Path

from logfan.config.loader import prepare
from logfan.doctor.checks import CHECKS
from logfan.doctor.examination import Examination
from logfan.doctor.findings import Finding, Severity, worst_first
from support.broker import Names

DANGER, WARNING, ADVICE = Severity.DANGER, Severity.WARNING, Severity.ADVICE
OK, SKIPPED = Severity.OK, Severity.SKIPPED
SCREEN = '[sinks.screen]\nkind = "stdout"\n'


class Report:
    """What one run found, by check."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings

    def of(self, check: str) -> list[Finding]:
        """All findings of a check; each check has some."""
        found = [one for one in self.findings if one.check == check]
        assert found, f"{check} found nothing at all: {[one.check for one in self.findings]}"
        return found

    def one(self, check: str) -> Finding:
        """Its worst finding."""
        return worst_first(self.of(check))[0]


def examined(
    folder: Path,
    urls: str | list[str],
    names: Names,
    more: str = "",
    *,
    rabbitmq: str = "",
    sinks: str = SCREEN,
    checks: tuple[str, ...] = (),
    sample_seconds: float = 0.0,
) -> Report:
    """Run the checks of these names after `login`, or all of them. `more`: whole tables;
    `rabbitmq`: keys of that one; in `more` [exchange] and [queue] are written by `{exchange}` and
    `{queue}` keys."""
    listed = [urls] if isinstance(urls, str) else urls
    written = ", ".join(f'"{url}"' for url in listed)
    text = f"[rabbitmq]\nurls = [{written}]\n{rabbitmq}\n"
    for table, name in (("exchange", names.exchange), ("queue", names.queue)):
        if f"[{table}]" in more:
            more = more.replace(f"[{table}]", f'[{table}]\nname = "{name}"')
        else:
            text += f'[{table}]\nname = "{name}"\n'
    if "[plugins]" not in more:
        text += "[plugins]\ndirectories = []\n"
    (folder / "config.toml").write_text(f"{text}{more}\n{sinks}")
    prepared = prepare(folder / "config.toml", environ={}, every_plugin=False)
    chosen = [one for one in CHECKS if not checks or one.name in (*checks, "login")]
    assert set(checks) <= {one.name for one in CHECKS}
    with Examination(prepared, sample_seconds=sample_seconds) as exam:
        report = Report(list(exam.run(chosen)))
    failed = [one for one in report.findings if "the check itself failed" in one.what]
    assert not failed, failed
    return report
