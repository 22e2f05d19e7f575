"""Each check of the connection is made to fail, on a real broker."""

import json
from pathlib import Path

from logfan.config.loader import prepare
from logfan.doctor.checks import CHECKS
from logfan.doctor.examination import Examination
from logfan.testing.node import RabbitNode, free_port
from support.broker import Names, add_user, delete_user, granting, limit_user
from support.command import logfan
from support.doctor import ADVICE, DANGER, OK, SKIPPED, WARNING, examined
from support.tls_node import TlsNode


def test_a_sound_broker_has_no_danger(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    checks = ("name", "port", "login", "channels", "connections", "frame-max", "heartbeat",
              "alarms", "version", "plain-text")  # fmt: skip
    report = examined(tmp_path, node.url, names, checks=checks)
    assert {one.severity for one in report.findings} == {OK}, report.findings


def test_a_name_that_does_not_exist(names: Names, tmp_path: Path) -> None:
    report = examined(tmp_path, "amqp://a:b@no-such-host.invalid", names)
    assert report.one("name").severity is DANGER
    assert report.one("heartbeat").severity is SKIPPED
    done = logfan("doctor", folder=tmp_path)
    assert done.returncode == 69
    assert "no-such-host.invalid was not found" in done.stdout


def test_a_port_where_nothing_listens_among_others(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    nowhere = f"amqp://guest:guest@127.0.0.1:{free_port()}"
    report = examined(tmp_path, [nowhere, node.url], names, checks=("port",))
    assert report.one("port").severity is WARNING
    alone = examined(tmp_path, nowhere, names, checks=("port",))
    assert alone.one("port").severity is DANGER
    assert logfan("check", "--connect", folder=tmp_path).returncode == 69


def test_a_wrong_password_and_another_url(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    wrong = node.url.replace("guest:guest", "guest:Not-The-One")
    assert examined(tmp_path, wrong, names, checks=()).one("login").severity is DANGER
    done = logfan("doctor", "--json", folder=tmp_path)
    assert done.returncode == 1
    assert "Not-The-One" not in done.stdout + done.stderr
    listed = json.loads(done.stdout)
    assert {tuple(one) for one in listed} == {("check", "severity", "what", "means", "do")}
    assert [one["check"] for one in listed if one["severity"] == "danger"] == ["login"]
    both = examined(tmp_path, [wrong, node.url], names, checks=("login",))
    assert both.one("login").severity is WARNING


def test_a_config_with_a_fault(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[rabbitmq]\nprefetch = 0\n")
    assert logfan("doctor", folder=tmp_path).returncode == 78


def test_what_a_connection_may_do(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    checks = ("channels", "frame-max", "heartbeat")
    with granting(node, channel_max=1, frame_max=8192):
        report = examined(tmp_path, node.url, names, rabbitmq='heartbeat = "2s"', checks=checks)
        long = examined(tmp_path, node.url, names, rabbitmq='heartbeat = "10m"', checks=checks)
    assert [report.one(check).severity for check in checks] == [WARNING, WARNING, WARNING]
    assert long.one("heartbeat").severity is ADVICE


def test_a_limit_of_connections(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    user = f"u{names.queue[-6:]}"
    add_user(node, user)
    limit_user(node, user, "max-connections", 1)
    url = node.url.replace("guest:guest", f"{user}:secret")
    report = examined(tmp_path, url, names, checks=("connections",))
    delete_user(node, user)
    assert report.one("connections").severity is DANGER


def test_a_limit_of_channels(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    user = f"u{names.queue[-6:]}"
    add_user(node, user)
    url = node.url.replace("guest:guest", f"{user}:secret")
    found = []
    for most in (1, 0):
        limit_user(node, user, "max-channels", most)
        found.append(examined(tmp_path, url, names))  # no check fails for want of a connection
    assert logfan("doctor", folder=tmp_path).returncode == 1
    delete_user(node, user)
    assert [report.one("channels").severity for report in found] == [WARNING, DANGER]


def test_a_connection_that_goes_meanwhile_is_made_again(
    own_node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    examined(tmp_path, own_node.url, names, checks=())
    checks = {one.name: one for one in CHECKS}
    with Examination(prepare(tmp_path / "config.toml", environ={}, every_plugin=False)) as exam:
        assert [one.severity for one in exam.run([checks["login"]])] == [OK]
        own_node.close_all_connections()
        found = list(exam.run([checks["queue"], checks["exchange"]]))
        assert [one for one in found if one.severity is SKIPPED][1:] == [], found
        own_node.stop()
        list(exam.run([checks["dead-letters"], checks["alarms"]]))
        assert exam.is_unavailable
    own_node.start()


def test_an_alarm(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    node.eval("rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).")
    try:
        report = examined(tmp_path, node.url, names, checks=("alarms",))
    finally:
        node.eval("rabbit_alarm:clear_alarm({resource_limit, memory, node()}).")
    assert report.one("alarms").severity is DANGER
    assert "memory" in report.one("alarms").what


def test_a_version_without_a_limit_of_returns(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    report = examined(
        tmp_path, node.url, names, '[queue]\ntype = "quorum"\n', checks=("version",)
    )  # fmt: skip
    older = node.version.startswith("3.")
    assert report.one("version").severity is (ADVICE if older else OK)


def test_a_certificate_of_a_ca_that_is_not_trusted(
    tls: TlsNode, names: Names, tmp_path: Path
) -> None:
    url = f"amqps://guest:guest@localhost:{tls.open_port}"
    assert examined(tmp_path, url, names).one("tls").severity is DANGER
    unread = examined(tmp_path, url, names, "[rabbitmq.tls]\nverify = false\n")
    assert unread.one("plain-text").severity is WARNING
    assert unread.one("tls-expiry").severity is SKIPPED


def test_a_certificate_that_expires_soon(tls: TlsNode, names: Names, tmp_path: Path) -> None:
    url = f"amqps://guest:guest@localhost:{tls.open_port}"
    trusted = f'[rabbitmq.tls]\nca_file = "{tls.authority.file}"\n'
    assert examined(tmp_path, url, names, trusted).one("tls-expiry").severity is OK
    tls.show("localhost", valid_to_day=5)
    try:
        report = examined(tmp_path, url, names, trusted)
    finally:
        tls.show("localhost", "127.0.0.1")
    assert report.one("tls-expiry").severity is WARNING
    assert report.one("login").severity is OK
