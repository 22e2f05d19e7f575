"""The private broker, its queue or queues, what fills them, and one observer for all contestants.

The observer is a process inside the broker that looks at the queues every 5 ms and writes a line
when something changed. So all contestants are measured in the same way, spend nothing on it, and a
message counts as done once the broker has its acknowledgement.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from bench import bodies
from bench.build import Programs
from bench.clocks import CpuClock
from logfan.testing.node import RabbitNode
from support.broker import channel
from support.waiting import wait_until

QUEUE = "bench"
FANOUT, SPREAD = f"{QUEUE}-logs", f"{QUEUE}-hash"
"""What programs publish to, and the consistent-hash exchange bound to it."""
WEIGHT = "10"
"""Of each queue behind SPREAD: its binding key."""
PLUGIN = "rabbitmq_consistent_hash_exchange"
MOST_QUEUES = 4
TESTS = Path(__file__).parents[1]
_FILL_SECONDS = 240.0
LOOK_SECONDS = 0.005
"""How often the observer looks."""

# `Look` gives what waits and what is there at all, unacknowledged messages included, in all queues.
_OBSERVER = """
spawn(fun() ->
  group_leader(whereis(init), self()),
  register(logfan_bench_observer, self()),
  {ok, File} = file:open("@FILE@", [append, raw]),
  Names = [rabbit_misc:r(<<"/">>, queue, Queue) || Queue <- [@QUEUES@]],
  Ask = fun(Queue, Query) ->
    {ok, {_, Number}, _} = ra:local_query(amqqueue:get_pid(Queue), Query),
    Number
  end,
  One = fun(Queue) ->
    case amqqueue:get_type(Queue) of
      rabbit_quorum_queue ->
        {Ask(Queue, fun rabbit_fifo:query_messages_ready/1),
         Ask(Queue, fun rabbit_fifo:query_messages_total/1)};
      _ ->
        [{_, Ready}, {_, All}] = rabbit_amqqueue:info(Queue, [messages_ready, messages]),
        {Ready, All}
    end
  end,
  Look = fun() ->
    case [One(Queue) || Name <- Names, {ok, Queue} <- [rabbit_amqqueue:lookup(Name)]] of
      [] -> none;
      Found ->
        {Ready, All} = lists:unzip(Found),
        {lists:sum(Ready), lists:sum(All)}
    end
  end,
  Watch = fun Watch(Last) ->
    Now = (catch Look()),
    At = os:system_time(nanosecond),
    case Now of
      Last -> ok;
      {Ready, All} when is_integer(Ready) ->
        file:write(File, io_lib:format("~b ~b ~b~n", [At, Ready, All]));
      _ -> ok
    end,
    receive stop -> ok after @MS@ -> Watch(Now) end
  end,
  Watch(none)
end).
"""


class Look(NamedTuple):
    """All queues together at one moment. `at`: seconds since the epoch; `messages` includes
    unacknowledged ones, `ready` does not."""

    at: float
    ready: int
    messages: int


class Observer:
    """Reads what the process inside the broker writes."""

    def __init__(self, node: RabbitNode, folder: Path, queues: Sequence[str] = (QUEUE,)) -> None:
        self._file = folder / "observed"
        self._file.touch()
        code = _OBSERVER.replace("@FILE@", str(self._file))
        code = code.replace("@QUEUES@", ", ".join(f'<<"{queue}">>' for queue in queues))
        code = code.replace("@MS@", str(round(LOOK_SECONDS * 1000)))
        self._node = node
        node.eval(code)
        self._at = 0
        self.looks: list[Look] = []
        """Since `forget`, oldest first; there is one for each change."""

    @property
    def broker_pid(self) -> int:
        """The process id of the broker's virtual machine."""
        return int(re.sub(r"\D", "", self._node.eval("os:getpid().")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.CalledProcessError):  # a broker that is gone has no observer
            self._node.eval("logfan_bench_observer ! stop.")

    def forget(self) -> None:
        """Begin anew with what comes from now on."""
        self.read()
        self.looks = self.looks[-1:]

    def read(self) -> Look | None:
        """Take in what is new; the latest look."""
        with self._file.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            at, ready, messages = line.split()
            self.looks.append(Look(int(at) / 1e9, int(ready), int(messages)))
        return self.looks[-1] if self.looks else None


@dataclass(slots=True)
class Stage:
    """All that the contestants share."""

    node: RabbitNode
    folder: Path
    programs: Programs
    observer: Observer
    broker: CpuClock

    def declare(self, kind: str) -> None:
        """A new, empty, durable queue: `classic` or `quorum`."""
        with channel(self.node.url) as open_channel:
            open_channel.queue_delete(QUEUE)
            open_channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": kind})

    def declare_spread(self, count: int) -> None:
        """So many new, empty queues behind a consistent-hash exchange bound to the fanout."""
        with channel(self.node.url) as open_channel:
            for queue in queues_of(MOST_QUEUES):
                open_channel.queue_delete(queue)
            open_channel.exchange_declare(FANOUT, "fanout")
            by_id = {"hash-property": "message_id"}
            open_channel.exchange_declare(
                SPREAD, "x-consistent-hash", durable=True, arguments=by_id
            )
            open_channel.exchange_bind(SPREAD, FANOUT)
            for queue in queues_of(count):
                open_channel.queue_declare(queue, durable=True)
                open_channel.queue_bind(queue, SPREAD, WEIGHT)

    def filler(
        self,
        count: int,
        size: int,
        rate: float = 0.0,
        exchange: str = "",
        shape: str = bodies.PLAIN,
    ) -> list[str]:
        """The command that publishes `count` messages to the exchange, at `rate` a second."""
        deck = self.folder / f"deck-{size}-{shape}"
        if not deck.exists():
            deck.write_bytes(bodies.deck(size, shape))
        program = self.programs.fill
        start = [str(program)] if program else [sys.executable, "-m", "bench.fill"]
        command = [*start, str(self.node.port), QUEUE, str(count), str(size), str(deck), shape]
        return [*command, str(rate), exchange] if rate or exchange else command

    def fill(self, kind: str, count: int, size: int, shape: str = bodies.PLAIN) -> None:
        """A new queue with so many messages, all of them there when this returns."""
        self.declare(kind)
        self._fill(count, self.filler(count, size, shape=shape))

    def fill_spread(self, queues: int, count: int, size: int) -> None:
        """New queues with so many messages among them, all of them there when this returns."""
        self.declare_spread(queues)
        self._fill(count, self.filler(count, size, exchange=FANOUT))

    def _fill(self, count: int, filler: Sequence[str]) -> None:
        run(filler, _FILL_SECONDS)
        wait_until(lambda: self._holds(count), f"{count} messages are in the broker", 120)
        self.observer.forget()

    def _holds(self, count: int) -> bool:
        look = self.observer.read()
        return look is not None and look.ready == look.messages == count


def queues_of(count: int) -> list[str]:
    """The names of so many queues; the first is the one queue of all other measurements."""
    return [QUEUE, *(f"{QUEUE}-{number}" for number in range(2, count + 1))]


def run(command: Sequence[str], seconds: float) -> str:
    """What the program printed. Raises RuntimeError with its complaint."""
    done = subprocess.run(
        command,
        check=False,
        timeout=seconds,
        capture_output=True,
        text=True,
        cwd=TESTS,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr.strip()[-500:]}")
    return done.stdout
