"""Several queues behind a consistent-hash exchange, set up as systemd/scale.md shows."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pika
import pytest

from logfan.testing.node import RabbitNode
from support.broker import Names, channel
from support.daemon import DaemonProcess
from support.systemd import ROOT
from support.waiting import wait_until

PAGE = (ROOT / "systemd" / "scale.md").read_text(encoding="utf-8")
COUNT = 200


def block(language: str) -> str:
    """The page's block in that language which speaks of the exchange."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [found] = [text for text in blocks if "logs.hash" in text]
    return str(found)


@pytest.fixture
def pair(node: RabbitNode, names: Names, tmp_path: Path) -> Iterator[list[DaemonProcess]]:
    """Two daemons with a queue each, and names of this test's own in place of `logs`."""
    definitions = tmp_path / "logs.json"
    definitions.write_text(block("json").replace('"logs', f'"{names.exchange}'))
    node.ctl("import_definitions", str(definitions))
    config = f'rabbitmq.urls = ["{node.url}"]\nplugins.directories = []\n'
    config += block("toml").replace('"logs', f'"{names.exchange}')
    with ExitStack() as stack:
        daemons = []
        for number in ("1", "2"):
            folder = tmp_path / number
            folder.mkdir()
            own = {"LOGFAN_QUEUE__NAME": f"{names.queue}.{number}", "LOGFAN_INSTANCE": number}
            daemon = DaemonProcess(folder, node.url, names, "", environ=own)
            daemon.config.write_text(config)
            daemon.start(ready=False)
            stack.callback(daemon.kill)
            daemons.append(daemon)
        for daemon in daemons:
            daemon.wait_ready()
        yield daemons


def test_the_page_shows_how_to_see_that_the_exchange_is_fed(
    pair: list[DaemonProcess], node: RabbitNode, names: Names
) -> None:
    found = re.search(r"rabbitmqctl (list_bindings [a-z_ ]+) \| grep -w logs\.hash\n(.*?)^```$",
                      PAGE, re.MULTILINE | re.DOTALL)  # fmt: skip
    assert found is not None
    listed = node.ctl(*found[1].split()).splitlines()
    for line in found[2].replace("logs", names.exchange).splitlines():
        assert line.replace("logfan", names.queue) in listed


def test_two_queues_set_up_by_the_page_share_the_messages_and_lose_none(
    pair: list[DaemonProcess], node: RabbitNode, names: Names
) -> None:
    with channel(node.url, confirms=True) as open_channel:
        for number in range(COUNT):
            properties = pika.BasicProperties(message_id=f"id-{number}")
            body = json.dumps({"n": number}).encode()
            open_channel.basic_publish(names.exchange, "", body, properties)
    wait_until(lambda: sum(daemon.acked() for daemon in pair) == COUNT, "all are acknowledged")
    held = [(daemon.folder / "all.jsonl").read_bytes().splitlines() for daemon in pair]
    assert all(held)
    numbers = Counter(json.loads(line)["body"]["n"] for lines in held for line in lines)
    assert numbers == Counter(range(COUNT))
