"""Partitions are merged in the order of sending, whatever is read first."""

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from server.adapters.time_order import Message, TimeOrder
from server.ports import Arrival, LogRecord

PARTS = [TopicPartition("events", number) for number in range(3)]


def message(sent_ms, offset=0, origin="a", origin_offset=0, after=0):
    return Message(offset, Arrival(LogRecord(0, 1, 0, "v", "", b""), origin, origin_offset), sent_ms, after, sent_ms)


@given(st.lists(st.integers(0, 2), max_size=60), st.randoms(use_true_random=False), st.integers(1, 9))
def test_order_of_sending_comes_back_however_it_is_read(placed, chance, limit):
    """`placed` is the partition of each record, three of which are sent at one time."""
    sent = [
        (PARTS[part], message(number // 3, number, "ab"[number % 7 < 3], number)) for number, part in enumerate(placed)
    ]
    sent.sort(key=lambda one: one[1].key)
    rest = {part: [one for place, one in sent if place == part] for part in PARTS}
    order, taken = TimeOrder(), []
    while any(rest.values()) or any(map(order.count, PARTS)):
        unread = {part for part in PARTS if rest[part]}
        taken += order.take(limit, unread, 0)
        part = chance.choice(PARTS)
        count = chance.randint(0, 5)
        order.add(part, rest[part][:count])
        del rest[part][:count]
    assert taken == sent


def test_nothing_is_taken_while_an_earlier_one_may_come():
    order = TimeOrder()
    order.add(PARTS[0], [message(1), message(3)])
    assert order.take(9, {PARTS[1]}, 0) == []
    order.add(PARTS[1], [message(2)])
    assert [one.sent_ms for _, one in order.take(9, {PARTS[1]}, 0)] == [1, 2]
    assert [one.sent_ms for _, one in order.take(9, (), 0)] == [3]


def test_partition_keeps_its_own_order_where_clocks_differ():
    order = TimeOrder()
    order.add(PARTS[0], [message(9, 0), message(1, 1)])
    order.add(PARTS[1], [message(5, 0)])
    assert [(part.partition, one.offset) for part, one in order.take(9, (), 0)] == [(1, 0), (0, 0), (0, 1)]
    order.add(PARTS[0], [message(1)])
    order.begin({})
    assert order.count(PARTS[0]) == 0


def test_message_waits_for_the_one_before_it_while_that_may_come():
    """Kafka may show one partition of a round before another."""
    order = TimeOrder()
    order.begin({"a": 7})
    order.add(PARTS[0], [message(5, 0, "a", 9, after=8)])
    assert order.take(9, (), since_s=4) == []
    order.add(PARTS[1], [message(5, 0, "a", 8, after=7)])
    assert [one.arrival.origin_offset for _, one in order.take(9, (), since_s=4)] == [8, 9]
    order.add(PARTS[0], [message(6, 1, "b", 3, after=2)])
    assert order.take(9, (), since_s=5) == []
    assert len(order.take(9, (), since_s=6)) == 1, "it was awaited for long enough"


def test_message_of_a_round_that_was_sent_again_comes_before_what_followed_it():
    """The login of the first try is there, and the view only of the second; others go on meanwhile."""
    order = TimeOrder()
    order.begin({"a": 7})
    order.add(PARTS[0], [message(5, 0, "a", 9, after=8)])
    order.add(PARTS[1], [message(6, 0, "b", 1)])
    assert [one.arrival.origin for _, one in order.take(9, (), since_s=0)] == ["b"]
    order.add(PARTS[1], [message(7, 1, "a", 8, after=7)])
    assert [one.arrival.origin_offset for _, one in order.take(9, (), since_s=0)] == [8, 9]


def test_partitions_that_wait_for_each_other_go_on():
    """Two logs were sent at one time, and each partition took the other first."""
    order = TimeOrder()
    order.begin({"a": 8, "b": 4})
    order.add(PARTS[0], [message(5, 0, "a", 10, after=9), message(6, 1, "b", 5, after=4)])
    order.add(PARTS[1], [message(6, 0, "b", 6, after=5), message(5, 1, "a", 9, after=8)])
    assert len(order.take(9, (), since_s=0)) == 4


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=40), st.randoms(use_true_random=False))
def test_nothing_waits_for_what_is_there(records, chance):
    """Rounds of several logs lie in each partition in an order of its own; one log's stay in order."""
    offsets = dict.fromkeys("abc", 0)
    parts = {part: [] for part in PARTS}
    for time, (origin, part) in enumerate(records, 1):
        after = offsets[origin]
        offsets[origin] = after + 1
        parts[PARTS[part]].append(message(time // 8 + 1, 0, origin, after + 1, after))
    order, count = TimeOrder(), 0
    order.begin({})
    for part, queue in parts.items():
        lines = {origin: [one for one in queue if one.arrival.origin == origin] for origin in "abc"}
        mixed = []
        while any(lines.values()):
            mixed.append(lines[chance.choice([origin for origin in "abc" if lines[origin]])].pop(0))
        order.add(part, mixed)
        count += len(mixed)
    assert len(order.take(1_000, (), since_s=0)) == count
