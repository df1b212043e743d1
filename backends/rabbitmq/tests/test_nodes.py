"""The order in which connections try the nodes of a RabbitMQ cluster."""

from __future__ import annotations

from gearshift_rabbitmq.nodes import Address, Nodes

ADDRESSES = [Address(f"node-{number}", f"10.0.0.{number}", 5672) for number in range(3)]


def test_services_spread() -> None:
    """Many that are given the nodes in one order begin with different ones; each keeps its own."""
    firsts = set()
    for _ in range(100):
        nodes = Nodes()
        order = nodes.in_order(ADDRESSES)
        assert set(order) == set(ADDRESSES)
        assert nodes.in_order(reversed(ADDRESSES)) == order
        firsts.add(order[0])
    assert firsts == set(ADDRESSES)


def test_what_has_failed_comes_last_for_a_while() -> None:
    """Longest ago comes first of those that failed; after half a minute all is as before."""
    now = 0.0
    nodes = Nodes(clock=lambda: now)
    one, two, three = nodes.in_order(ADDRESSES)
    nodes.failed(one)
    assert nodes.in_order(ADDRESSES) == [two, three, one]
    now = 1.0
    nodes.failed(two)
    assert nodes.in_order(ADDRESSES) == [three, one, two]
    now = 31.5
    assert nodes.in_order(ADDRESSES) == [one, two, three]


def test_the_preferred_family_comes_first() -> None:
    """Of a name's addresses those of the family that the system prefers, whatever was drawn."""
    v6 = Address("node", "::1", 5672, family=0)
    v4 = Address("node", "127.0.0.1", 5672, family=1)
    assert all(Nodes().in_order([v4, v6]) == [v6, v4] for _ in range(20))


def test_a_question_that_is_answered_late_is_waited_for_longer_next_time() -> None:
    """Else a consumer that gives up each time gets nothing for as long as answers are late."""
    nodes, waited = Nodes(), []
    while (patience_s := nodes.patience_s("basic_consume orders:0")) < 12.0:
        waited.append(patience_s)
        nodes.took("basic_consume orders:0", patience_s)
    nodes.took("basic_consume orders:0", 12.0)  # answered at last
    assert waited == [5.0, 10.0]
    assert nodes.patience_s("basic_consume orders:0") == 24.0
    assert nodes.patience_s("basic_consume orders:1") == 5.0
    nodes.took("basic_consume orders:0", 100.0)
    assert nodes.patience_s("basic_consume orders:0") == 40.0
    nodes.took("basic_consume orders:0", 0.1)
    assert nodes.patience_s("basic_consume orders:0") == 5.0
