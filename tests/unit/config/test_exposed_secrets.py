"""Files with secrets that are open to people who should not see them."""

import grp
import os
import pwd
import subprocess
from pathlib import Path

import pytest

from logfan.config import file_permissions
from logfan.config.loader import prepare
from support.certificates import Authority

SINK = '[sinks.a]\nkind = "stdout"\n'
FOREIGN_GROUP = 54_321


def warned(tmp_path: Path, text: str, mode: int = 0o600, **environ: str) -> str:
    config = tmp_path / "config.toml"
    config.write_text(f"[plugins]\ndirectories = []\n{SINK}{text}")
    config.chmod(mode)
    return "\n".join(prepare(config, environ=environ).warnings)


def file_with(path: Path, mode: int, group: int | None = None) -> Path:
    path.write_text("amqp://bob:s3cret@host\n")
    path.chmod(mode)
    if group is not None:
        os.chown(path, -1, group)
    return path


@pytest.mark.parametrize(
    ("mode", "who"), [(0o644, "everybody"), (0o604, "everybody"), (0o640, ""), (0o600, "")]
)
def test_a_url_file_is_for_its_owner_and_its_own_group(tmp_path: Path, mode: int, who: str) -> None:
    file = file_with(tmp_path / "url", mode)
    warning = warned(tmp_path, f'[rabbitmq]\nurl_file = "{file}"\n', 0o644)
    wanted = f"rabbitmq.url_file: {file} may be read by {who}; chmod 600 {file}"
    assert warning.startswith(wanted) if who else warning == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to a foreign group")
def test_a_foreign_group_is_named(tmp_path: Path) -> None:
    file = file_with(tmp_path / "url", 0o640, FOREIGN_GROUP)
    warning = warned(tmp_path, f'[rabbitmq]\nurl_file = "{file}"\n')
    assert f"may be read by the group {FOREIGN_GROUP}; chmod 600" in warning


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to a foreign group")
@pytest.mark.parametrize("mode", [0o400, 0o440])
def test_a_credential_of_systemd_is_as_it_should_be(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir(0o700)
    file = file_with(folder / "rabbitmq-url", mode, FOREIGN_GROUP)
    text = f'[rabbitmq]\nurl_file = "{file}"\n'
    assert warned(tmp_path, text, CREDENTIALS_DIRECTORY=str(folder)) == ""


def test_private_keys_are_secrets_and_certificates_are_not(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("server", "localhost")
    pair.key.chmod(0o644)
    both = tmp_path / "both.pem"
    both.write_bytes(pair.cert.read_bytes() + pair.key.read_bytes())
    both.chmod(0o644)
    warning = warned(
        tmp_path,
        f'[rabbitmq]\nurls = ["amqps://h"]\n[rabbitmq.tls]\ncert_file = "{both}"\n'
        f"[http.tls]\n{pair.toml}",
    )
    assert warning.splitlines() == [
        f"{key}: {file} may be read by everybody; {file_permissions.remedy(file)}"
        for key, file in (("rabbitmq.tls.cert_file", both), ("http.tls.key_file", pair.key))
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[rabbitmq]\nurls = ["amqp://h", "amqp://bob:s3cret@h"]\n', "rabbitmq.urls"),
        ('[rabbitmq]\nurls = ["amqp://guest:guest@h"]\n', ""),
    ],
    ids=["password", "guest"],
)
def test_a_config_that_holds_a_password_is_a_secret(tmp_path: Path, text: str, place: str) -> None:
    warning = warned(tmp_path, text, 0o644)
    assert ("holds a password" in warning) is bool(place)
    assert f"({place}) and may be read by everybody" in warning or not place
    assert warned(tmp_path, text, 0o640) == ""
    assert "s3cret" not in warning


@pytest.mark.parametrize(
    ("kind", "options", "key"),
    [
        ("http", 'url = "http://h/"\ntoken_file = "{}"', "token_file"),
        ("http", 'url = "http://h/"\nusername = "u"\npassword_file = "{}"', "password_file"),
        ("http", 'url = "https://h/"\ntls = {{ key_file = "{}" }}', "tls.key_file"),
        ("postgres", 'dsn_file = "{}"', "dsn_file"),
        ("amqp", 'exchange = "x"\nurl_file = "{}"', "url_file"),
        ("s3", 'bucket = "logs"\naccess_key_id = "k"\nsecret_access_key_file = "{}"',
         "secret_access_key_file"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_sinks_files_with_secrets_are_for_the_daemon_alone(
    tmp_path: Path, kind: str, options: str, key: str, mode: int
) -> None:
    file = file_with(tmp_path / "secret", mode)
    warning = warned(tmp_path, f'[sinks.b]\nkind = "{kind}"\n{options.format(file)}\n')
    wanted = f"sinks.b.{key}: {file} may be read by everybody; {file_permissions.remedy(file)}"
    assert (wanted in warning.splitlines()) is (mode == 0o644)


def test_a_sinks_own_password_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "post.py").write_text(
        "import logfan\n\nclass Post(logfan.Sink):\n    class Config(logfan.SinkConfig):\n"
        "        api_key: str\n        api_key_file: str = ''\n\n"
        "    def write(self, records): pass\n\n"
        "@logfan.hookimpl\ndef register_sinks(register):\n    register('post', Post)\n"
    )
    config = tmp_path / "config.toml"
    config.write_text(
        f'[plugins]\ndirectories = ["{tmp_path}"]\n[sinks.post]\nkind = "post"\napi_key = "k"\n'
    )
    config.chmod(0o644)
    (warning,) = prepare(config, environ={}).warnings
    assert f"{config} holds a password (sinks.post.api_key)" in warning


def test_a_password_from_the_environment_is_not_the_files(tmp_path: Path) -> None:
    warning = warned(tmp_path, "", 0o644, LOGFAN_RABBITMQ__URLS='["amqp://bob:s3cret@h"]')
    assert warning == ""


def test_a_config_that_others_may_change_is_warned_about(tmp_path: Path) -> None:
    assert "may be changed by everybody" in warned(tmp_path, "", 0o646)


def test_a_tls_table_that_does_nothing_is_warned_about(tmp_path: Path) -> None:
    ca = Authority(tmp_path).file
    text = f'[rabbitmq]\nurls = ["amqp://h"]\n[rabbitmq.tls]\nca_file = "{ca}"\n'
    assert "that way has no TLS" in warned(tmp_path, text)


def test_a_server_that_is_not_verified_is_warned_about(tmp_path: Path) -> None:
    text = '[rabbitmq]\nurls = ["amqps://h"]\n[rabbitmq.tls]\nverify = false\n'
    assert warned(tmp_path, text).startswith("rabbitmq.tls.verify = false: ")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> str:
    """A user that every Debian has stands for the service's; root looks at its files."""
    if os.geteuid() != 0:
        pytest.skip("only root checks for another user")
    monkeypatch.setattr(file_permissions, "SERVICE", "games")
    return grp.getgrgid(pwd.getpwnam("games").pw_gid).gr_name


def test_the_advice_keeps_the_services_group_able_to_read(tmp_path: Path, service: str) -> None:
    text = '[rabbitmq]\nurls = ["amqp://bob:s3cret@h"]\n'
    path = tmp_path / "config.toml"
    advice = f"chgrp {service} {path} && chmod 640 {path}"
    assert advice in warned(tmp_path, text, 0o644)
    # What the advice was before locks the service out, and is named.
    locked = warned(tmp_path, text, 0o640)
    assert locked == f"{path} may not be read by the service's user games; {advice}"
    subprocess.run(advice, shell=True, check=True)
    assert list(prepare(path, environ={}).warnings) == []


def test_a_url_file_that_the_service_may_not_read_is_reported(tmp_path: Path, service: str) -> None:
    file = file_with(tmp_path / "url", 0o600)
    warning = warned(tmp_path, f'[rabbitmq]\nurl_file = "{file}"\n', 0o644)
    assert warning.startswith(
        f"rabbitmq.url_file: {file} may not be read by the service's user games"
    )
    subprocess.run(f"chgrp {service} {file} && chmod 640 {file}", shell=True, check=True)
    assert list(prepare(tmp_path / "config.toml", environ={}).warnings) == []


def test_a_file_of_the_services_own_is_for_it_alone(tmp_path: Path, service: str) -> None:
    file = file_with(tmp_path / "url", 0o644)
    os.chown(file, pwd.getpwnam("games").pw_uid, -1)
    warning = warned(tmp_path, f'[rabbitmq]\nurl_file = "{file}"\n', 0o644)
    assert warning == f"rabbitmq.url_file: {file} may be read by everybody; chmod 600 {file}"
