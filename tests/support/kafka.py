"""A private Kafka on loopback: one node that is broker and controller (KRaft), from Maven."""

import subprocess
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from logfan.testing.node import free_port
from support.certificates import Authority, Pair
from support.gate import Gate
from support.java import JavaServer, jars
from support.waiting import wait_until

_ARTIFACTS = ("org.apache.kafka:kafka_2.13:4.1.1", "org.slf4j:slf4j-simple:1.7.36")
_CLUSTER = "bG9nZmFuLXRlc3RzLTAwMQ"
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{sasl_port},\
GATED://127.0.0.1:{gated},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{sasl_port},\
GATED://127.0.0.1:{gate}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,GATED:PLAINTEXT,\
SASL_SSL:SASL_SSL
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_logfan="s3cret";
listener.name.sasl_ssl.ssl.keystore.type=PEM
listener.name.sasl_ssl.ssl.keystore.location={keystore}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
log.cleaner.enable=false
num.io.threads=2
num.network.threads=2
background.threads=2
"""

Message = tuple[bytes, bytes | None, dict[str, bytes]]
"""Value, key and headers."""


class Kafka(JavaServer):
    """Topics are not made by themselves. At `sasl` it wants TLS, and the user `logfan` with the
    password `s3cret`."""

    def __init__(self) -> None:
        super().__init__("kafka", jars("kafka-4.1.1", *_ARTIFACTS), heap="256m")
        port, sasl_port = free_port(), free_port()
        self.address, self.sasl = f"127.0.0.1:{port}", f"127.0.0.1:{sasl_port}"
        gated = free_port()
        self.gate = Gate(gated)
        """Before a listener of its own, which clients come back to."""
        authority = Authority(self.folder)
        self.ca = authority.file
        self._config = self.folder / "server.properties"
        self._config.write_text(
            _PROPERTIES.format(
                port=port, sasl_port=sasl_port, controller=free_port(), data=self.folder / "data",
                gated=gated, gate=self.gate.port,
                keystore=_keystore(authority.issue("kafka", "127.0.0.1")),
            )
        )  # fmt: skip
        form = ("kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(self._config))
        subprocess.run(self.java(*form), check=True, capture_output=True, timeout=90)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch(self.java("kafka.Kafka", str(self._config)))

    def is_ready(self) -> bool:
        """Whether it tells of itself."""
        try:
            self._admin().list_topics(timeout=1)
        except KafkaException:
            return False
        return True

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def create(self, topic: str, **config: str) -> None:
        """Make a topic with one partition; `max_message_bytes` is `max.message.bytes`."""
        given = {name.replace("_", "."): value for name, value in config.items()}
        admin = self._admin()

        def is_made() -> bool:
            made = admin.create_topics([NewTopic(topic, 1, 1, config=given)])[topic]
            try:
                made.result(60)
            except KafkaException as error:
                # After a moment without an answer its controller takes it for gone.
                if error.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR:
                    return False
                raise
            return True

        wait_until(is_made, "the broker takes part again")
        # The broker that answers may learn of it a moment later.
        wait_until(lambda: admin.list_topics(topic, 10).topics[topic].error is None, "it is known")

    def messages(self, topic: str) -> list[Message]:
        """All that the topic holds now, a partition after the other."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address, "group.id": "reader", "log_level": 0,
                "enable.auto.commit": False, "auto.offset.reset": "earliest",
                "enable.partition.eof": False,
            }
        )  # fmt: skip
        found: list[Message] = []
        try:
            for partition in consumer.list_topics(topic, timeout=60).topics[topic].partitions:
                where = TopicPartition(topic, partition, 0)
                low, high = consumer.get_watermark_offsets(where, timeout=60)
                position = low
                consumer.assign([where])
                while position < high:
                    for message in consumer.consume(min(high - position, 10_000), timeout=1):
                        if message.error() is not None:
                            raise KafkaException(message.error())
                        headers: Any = message.headers() or []
                        found.append((message.value() or b"", message.key(), dict(headers)))
                        position = (message.offset() or 0) + 1
        finally:
            consumer.close()
        return found


def _keystore(pair: Pair) -> Path:
    """Key and certificate in one file. Java reads the key as PKCS #8 alone."""
    key = load_pem_private_key(pair.key.read_bytes(), password=None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    keystore = pair.key.with_suffix(".keystore.pem")
    keystore.write_bytes(pem + pair.cert.read_bytes())
    return keystore
