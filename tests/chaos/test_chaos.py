"""A share of the chaos run that is small enough for every `make test`."""

import random

import pytest

from chaos import faults, report
from chaos.run import REFUSE, carry_out
from chaos.scene import SHARE_PLAIN, scene
from logfan.testing.node import RabbitNode

SEED = "every day the same"
MESSAGES_A_KILL = 1_000
BROKER_KILLS = 3
"""One for each of its turns."""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [8, pytest.param(20, marks=pytest.mark.long)])
def test_nothing_is_lost_through_kills_and_every_other_fault(
    fresh_node: RabbitNode, kills: int
) -> None:
    messages = kills * MESSAGES_A_KILL
    rng = random.Random(SEED)
    with scene(
        fresh_node, rate=500, seed=SEED, refuse=REFUSE, disk_size=64 << 20, plain=True
    ) as stage:
        stage.wait_flowing("the first start")
        counts = faults.counts_for(kills, faults.can(stage))
        planned = faults.plan(rng, {**counts, faults.BROKER.name: BROKER_KILLS})
        left = carry_out(stage, planned, rng, deadline=float("inf"), messages=messages)
        verdict = stage.finish()
        facts = report.Facts.of(stage, seed=SEED, seconds=0)
        facts.broker = fresh_node.version
        print(report.as_text(facts, verdict))
        assert not verdict.faults()
        assert not left
        # Nothing was skipped: everything planned was seen to happen, under load, and was looked at.
        assert stage.done[faults.KILL.name] == kills
        assert stage.done[faults.BROKER.name] == BROKER_KILLS
        assert stage.done[faults.LIMIT.name] >= 1
        assert sum(stage.done.values()) == len(planned)
        assert stage.crashes >= kills
        assert stage.watcher.losses >= 3 + 5
        assert stage.watcher.scrapes > 100
        assert stage.watcher.growth()[1] >= 1
        assert verdict.confirmed >= messages
        for finding in verdict.findings:
            share = SHARE_PLAIN if "(plain)" in finding.sink else 1 - SHARE_PLAIN
            kept = finding.distinct + finding.refused + finding.unrouted
            assert kept >= messages * share * 0.8, finding.sink
        assert verdict.findings[0].duplicated > 0
