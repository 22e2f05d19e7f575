"""`watch = true`: a reload follows a change of the file, with the safety of any reload."""

import json
from pathlib import Path

from logfan.testing.node import RabbitNode
from support.broker import Names, publish, waiting
from support.daemon import DaemonProcess
from support.scripted_http import ScriptedServer
from support.waiting import wait_until

KEPT = "going on with the old one"
TAKEN = "the new config is taken over"


def sinks(file: str) -> str:
    return f'[sinks.raw]\nkind = "file"\npath = "{file}"\nformat = "raw"\n'


def watching(folder: Path, url: str, names: Names) -> DaemonProcess:
    return DaemonProcess(folder, url, names, sinks("1.log"), environ={"LOGFAN_WATCH": "true"})


def arrives(daemon: DaemonProcess, url: str, body: bytes, file: str) -> None:
    """Published once, written once."""
    publish(url, daemon.names.exchange, [body])
    path = daemon.folder / file
    wait_until(
        lambda: path.exists() and body in path.read_bytes().splitlines(),
        f"{body!r} in {file}:\n{daemon.log()}",
    )


def replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


def wait_for(daemon: DaemonProcess, text: str, count: int = 1) -> None:
    wait_until(lambda: daemon.log().count(text) == count, f"{text} {count} times:\n{daemon.log()}")


def test_a_change_is_taken_over_and_a_fault_keeps_the_old(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with watching(tmp_path, node.url, names) as daemon:
        arrives(daemon, node.url, b"one", "1.log")
        good = daemon.config.read_text()
        replace(daemon.config, good.replace("1.log", "2.log"))
        wait_for(daemon, TAKEN)
        daemon.wait_ready()
        assert f"reload: changed on disk: {daemon.config}" in daemon.log()
        arrives(daemon, node.url, b"two", "2.log")
        daemon.config.write_text(good.replace('kind = "file"', 'kind = "fiel"'))
        wait_for(daemon, KEPT)
        arrives(daemon, node.url, b"three", "2.log")
        daemon.config.unlink()
        wait_for(daemon, KEPT, 2)
        arrives(daemon, node.url, b"four", "2.log")
        daemon.config.write_text(good.replace("1.log", "3.log"))  # in place, too
        wait_for(daemon, TAKEN, 2)
        arrives(daemon, node.url, b"five", "3.log")
        assert daemon.log().count("changed on disk") == 4
        assert daemon.stop() == 0
    assert waiting(node.url, names.queue) == 0


def test_a_swap_of_a_symbolic_link_is_a_change(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    daemon = watching(tmp_path, node.url, names)
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        text = daemon.config.read_text().replace("1.log", f"{version}.log")
        (tmp_path / version / "config.toml").write_text(text)
    (tmp_path / "..data").symlink_to("v1")
    daemon.config.unlink()
    daemon.config.symlink_to("..data/config.toml")
    with daemon:
        arrives(daemon, node.url, b"one", "v1.log")
        (tmp_path / "..tmp").symlink_to("v2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        wait_for(daemon, TAKEN)
        arrives(daemon, node.url, b"two", "v2.log")
        assert daemon.stop() == 0


def test_a_new_url_in_its_file_is_a_change(node: RabbitNode, names: Names, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text(node.url)
    daemon = watching(tmp_path, node.url, names)
    urls, url_file = f'urls = ["{node.url}"]', f'url_file = "{secret}"'
    daemon.config.write_text(daemon.config.read_text().replace(urls, url_file))
    with daemon:
        arrives(daemon, node.url, b"one", "1.log")
        replace(secret, f"# rotated\n{node.url}\n")
        wait_for(daemon, TAKEN)
        assert f"changed on disk: {secret}" in daemon.log()
        assert "rabbitmq.url_file (the file's content)" in daemon.log()
        arrives(daemon, node.url, b"two", "1.log")
        assert daemon.stop() == 0


def test_a_file_that_the_new_config_names_may_come_later(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    file = tmp_path / "later"
    with watching(tmp_path, node.url, names) as daemon:
        config = daemon.config.read_text().replace(f'urls = ["{node.url}"]', f'url_file = "{file}"')
        replace(daemon.config, config)
        wait_for(daemon, KEPT)
        replace(file, node.url)
        wait_for(daemon, TAKEN)
        assert daemon.stop() == 0


def test_secrets_of_sinks_and_the_key_of_hashes_are_watched(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    server = ScriptedServer()
    token, key = tmp_path / "token", tmp_path / "key"
    token.write_text("first-token")
    key.write_text("first-key-of-hashes")
    with server.running():
        web = (
            f'[sinks.web]\nkind = "http"\nurl = "{server.url}"\ntoken_file = "{token}"\n'
            f'redact = {{ paths = ["user"], hash = true, key_file = "{key}" }}\n'
        )
        environ = {"LOGFAN_WATCH": "true"}
        with DaemonProcess(tmp_path, node.url, names, web, environ=environ) as daemon:

            def sent() -> tuple[str, object]:
                """The token and the hash that come with a record."""
                server.requests.clear()
                publish(node.url, names.exchange, [b'{"user": "ann"}'])
                wait_until(lambda: len(server.requests) == 1, f"it is sent:\n{daemon.log()}")
                request = server.requests[0]
                return request.headers["authorization"], json.loads(request.body)["body"]["user"]

            before = sent()
            replace(token, "second-token")
            wait_for(daemon, TAKEN)
            assert sent() == ("Bearer second-token", before[1])
            replace(key, "second-key-of-hashes")
            wait_for(daemon, TAKEN, 2)
            token_sent, hashed = sent()
            assert daemon.stop() == 0
            log = daemon.log()
    assert before[0] == "Bearer first-token"
    assert token_sent == "Bearer second-token"
    assert hashed not in ("ann", before[1])
    for name in ("token_file", "redact.key_file"):
        assert f"sinks.web.{name} (the file's content)" in log


def test_without_it_a_change_waits_for_a_reload(
    node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    with DaemonProcess(tmp_path, node.url, names, sinks("1.log")) as daemon:
        arrives(daemon, node.url, b"one", "1.log")
        replace(daemon.config, daemon.config.read_text().replace("1.log", "2.log"))
        publish(node.url, names.exchange, [b"two"])
        node.eval("timer:sleep(4000).")  # four of its looks
        assert "reload" not in daemon.log()
        assert daemon.stop() == 0
