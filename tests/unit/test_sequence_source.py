"""The source of what comes next: who waits for a vector, what the encoder is shown, what its vectors propose."""

import numpy as np
import pytest

from core_rs import BundleError, InvalidRequestError, history_length
from shopkeeper.v1.event_pb2 import EVENT_TYPE_IMPRESSION
from shopkeeper.v1.model_service_pb2 import Trial
from shopkeeper.v1.recommendation_service_pb2 import REASON_NEXT_ITEM
from tests.encoded_shop import (
    FILES,
    LENGTH,
    NOW,
    WIDTH,
    EncodedShop,
    activation,
    answer_of,
    erasure,
    item_vectors,
    view,
    write_bundle,
)

COUNT = 40
NAMES = [f"i{n}" for n in range(COUNT)]


@pytest.fixture
def shop(tmp_path):
    shop = EncodedShop(COUNT)
    shop.install(write_bundle(tmp_path / "one", NAMES, item_vectors(COUNT)))
    return shop


def shown(response):
    return [item.item_id for item in response.slates[0].items]


def test_the_nearest_to_the_vector_are_proposed(shop):
    shop.put(view("i3"), view("i9"), view("i3"))
    assert shop.encode() == 1
    response = shop.ask(size=8)
    vectors = item_vectors(COUNT)
    scores = vectors @ (2 * vectors[3] + vectors[9])
    assert shown(response) == [f"i{n}" for n in np.argsort(-scores)[:8]]
    assert {item.reason for item in response.slates[0].items} == {REASON_NEXT_ITEM}
    assert list(response.degraded) == []


def test_the_encoder_is_shown_the_newest_events_in_order_of_time(shop):
    shop.put(view("i5", at_ms=NOW + 4_000), view("i1", "elsewhere", at_ms=NOW), view("i2", at_ms=NOW + 1_500))
    shop.put(*(view(f"i{n}", visitor="w", at_ms=NOW + n * 60_000) for n in range(30)))
    histories = shop.engine.take_histories(9)
    assert histories.version == "one"
    assert len(histories) == 2
    assert histories.items.tolist()[0] == [2, COUNT + 1, 3, 6] + [0] * (LENGTH - 4)
    assert histories.actions.tolist()[0] == [3] * 4 + [0] * (LENGTH - 4)
    assert histories.gaps.tolist()[0] == [0, 0, 1_000, 3_000] + [0] * (LENGTH - 4)
    assert histories.items.tolist()[1] == [n + 1 for n in range(30 - LENGTH, 30)]
    assert histories.gaps.tolist()[1] == [0] + [60_000] * (LENGTH - 1)
    assert {part.dtype for part in (histories.items, histories.actions, histories.gaps)} == {np.dtype(np.int64)}
    assert history_length() >= LENGTH


def test_an_activation_lets_nobody_wait_and_a_request_its_visitor(tmp_path):
    shop = EncodedShop(COUNT)
    shop.put(*(view("i1", visitor=f"v{n}") for n in range(9)))
    shop.install(write_bundle(tmp_path / "one", NAMES, item_vectors(COUNT)))
    assert shop.engine.waiting == 0
    assert len(shown(shop.ask("v4"))) == 10
    shop.ask("v4")
    shop.ask("stranger")
    assert shop.engine.waiting == 1
    assert shop.encode() == 1
    assert shop.ask("v4", size=1).slates[0].items[0].reason == REASON_NEXT_ITEM
    assert shop.engine.waiting == 0


def test_an_event_lets_its_visitor_wait_once_and_the_last_vector_serves_meanwhile(shop):
    shop.put(view("i3"))
    shop.encode()
    shop.put(view("i4"), view("i5"))
    assert shop.engine.waiting == 1
    assert shop.ask(size=1).slates[0].items[0].item_id == "i3"
    assert shop.encode() == 1


def test_what_is_shown_changes_no_history_and_lets_nobody_wait(shop):
    shop.put(view("i3"))
    shop.encode()
    shop.put(view("i4", "i5", kind=EVENT_TYPE_IMPRESSION))
    response = shop.ask(size=1)
    assert (shown(response), list(response.degraded), shop.engine.waiting) == (["i3"], [], 0)


def test_an_event_that_comes_while_the_encoder_works_is_not_forgotten(shop):
    shop.put(view("i3"))
    histories = shop.engine.take_histories(9)
    shop.put(view("i4"))
    assert shop.engine.set_vectors(histories, shop.vectors(histories)) == 1
    assert shop.engine.waiting == 1
    assert shop.engine.take_histories(9).items.tolist()[0][:2] == [4, 5]


def test_late_is_said_by_the_time_of_the_first_event_that_the_vector_lacks(shop):
    shop.put(view("i3"), at_ms=NOW)
    shop.put(view("i4"), at_ms=NOW + 1_500)
    assert list(shop.ask(now_ms=NOW + 2_000).degraded) == []
    late = shop.ask(now_ms=NOW + 2_001)
    assert list(late.degraded) == ["sequence_late"]
    assert len(shown(late)) == 10
    taken = shop.engine.take_histories(9)
    assert list(shop.ask(now_ms=NOW + 2_001).degraded) == ["sequence_late"]
    shop.engine.put_back(taken)
    assert list(shop.ask(now_ms=NOW + 2_001).degraded) == ["sequence_late"]
    shop.encode()
    assert list(shop.ask(now_ms=NOW + 9_000).degraded) == []


@pytest.mark.parametrize("default", [True, False])
def test_who_does_not_consent_is_never_encoded(tmp_path, default):
    shop = EncodedShop(COUNT, consent_default=default)
    shop.install(write_bundle(tmp_path / "one", NAMES, item_vectors(COUNT)))
    shop.put(answer_of("no", granted=False), answer_of("yes", granted=True))
    shop.put(*(view("i3", visitor=visitor) for visitor in ("no", "yes", "silent")))
    assert shop.encode() == 1 + default
    assert shop.engine.waiting == 0
    for visitor in ("no", "silent"):
        shop.ask(visitor)
    assert shop.engine.waiting == 0
    shop.put(answer_of("yes", granted=False))
    assert shop.engine.stats()["sequence_vectors"] == int(default)


@pytest.mark.parametrize(
    "change", [erasure("v"), answer_of("v", granted=False), view("i4", user="u")], ids=["erased", "denied", "logged in"]
)
def test_what_was_made_for_a_visitor_that_changed_meanwhile_is_dropped(shop, change):
    shop.put(view("i3"))
    histories = shop.engine.take_histories(9)
    shop.put(change)
    shop.put(view("i5"))
    assert shop.engine.set_vectors(histories, shop.vectors(histories)) == 0
    assert shop.engine.stats()["sequence_vectors"] == 0


def test_a_denial_given_before_the_login_stops_what_is_made_of_the_known_visitor(shop):
    shop.put(view("i3"), answer_of("anonymous", granted=False))
    histories = shop.engine.take_histories(9)
    shop.put(view("i4", visitor="anonymous", user="v"))
    assert shop.engine.set_vectors(histories, shop.vectors(histories)) == 0
    assert (shop.engine.waiting, shop.engine.stats()["sequence_vectors"]) == (0, 0)


def test_a_login_brings_the_histories_together(shop):
    shop.put(view("i3"), view("i4", user="u", visitor="other"))
    shop.encode()
    shop.put(view("i5", user="u"))
    (row,) = shop.engine.take_histories(9).items.tolist()
    assert sorted(row[:3]) == [4, 5, 6]
    shop.put(answer_of("w", granted=False), view("i5", visitor="w"))
    shop.put(view("i6", visitor="w", user="u"))
    assert shop.engine.stats()["sequence_vectors"] == 0
    assert shop.encode() == 0


def test_a_browser_that_denied_stays_denied_after_the_logout_and_its_user_may_grant(shop):
    def is_personal(user=""):
        return {item.reason for item in shop.ask("phone", user=user).slates[0].items} == {REASON_NEXT_ITEM}

    shop.put(view("i3", user="ann", visitor="laptop"), view("i3", visitor="phone"))
    shop.encode()
    assert (is_personal("ann"), is_personal()) == (True, True)
    shop.put(answer_of("phone", granted=False))
    assert (is_personal("ann"), is_personal()) == (False, False)
    shop.put(view("i4", user="ann", visitor="phone"))
    shop.put(answer_of("ann", granted=True), view("i5", visitor="phone"))
    shop.ask("phone", user="ann")
    assert shop.encode() == 1
    assert (is_personal("ann"), is_personal()) == (True, False)


def test_a_vector_of_another_bundle_never_counts(shop, tmp_path):
    shop.put(view("i3"))
    shop.encode()
    before = shown(shop.ask(size=5))
    shop.install(write_bundle(tmp_path / "two", NAMES, item_vectors(COUNT, seed=5)))
    assert {item.reason for item in shop.ask(size=5).slates[0].items}.isdisjoint({REASON_NEXT_ITEM})
    assert shop.encode() == 1
    vectors = item_vectors(COUNT, seed=5)
    assert shown(shop.ask(size=5)) == [f"i{n}" for n in np.argsort(-(vectors @ vectors[3]))[:5]] != before


def test_visitors_of_a_canary_are_encoded_by_its_bundle(shop, tmp_path):
    shop.load(write_bundle(tmp_path / "two", NAMES, item_vectors(COUNT, seed=5)))
    trial = Trial(version="two", mode=Trial.MODE_CANARY, share=0.5)
    shop.put(activation("", trial=trial, is_trial_only=True))
    visitors = [f"v{n}" for n in range(20)]
    shop.put(*(view("i3", visitor=visitor) for visitor in visitors))
    versions = []
    while len(histories := shop.engine.take_histories(64)):
        versions.append((histories.version, len(histories)))
        shop.engine.set_vectors(histories, shop.vectors(histories))
    assert sorted(version for version, _ in versions) == ["one", "two"]
    assert sum(count for _, count in versions) == 20
    for visitor in visitors:
        assert shop.ask(visitor, size=1).slates[0].items[0].item_id == "i3"


def test_vectors_that_do_not_fit_are_refused(shop):
    shop.put(view("i3", visitor="a"), view("i4", visitor="b"))
    histories = shop.engine.take_histories(9)
    for shape in ((2, WIDTH + 1), (1, WIDTH), (3, WIDTH)):
        with pytest.raises(InvalidRequestError, match="2 histories need vectors of 16 values"):
            shop.engine.set_vectors(histories, np.zeros(shape, np.float32))
    vectors = shop.vectors(histories)
    vectors[0, 3] = np.nan
    assert shop.engine.set_vectors(histories, vectors) == 1
    assert shop.engine.waiting == 1


def test_a_snapshot_holds_vectors_and_who_waits(shop, tmp_path):
    shop.put(view("i3", visitor="a"), view("i4", visitor="b"))
    shop.encode()
    shop.put(view("i5", visitor="b"), view("i6", visitor="c"), at_ms=NOW + 500)
    files = [tmp_path / "one.snapshot", tmp_path / "again.snapshot"]
    shop.engine.save_snapshot(str(files[0]))
    other = EncodedShop(COUNT)
    other.engine.load_snapshot(str(files[0]))
    other.load(tmp_path / "one")
    other.engine.save_snapshot(str(files[1]))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert shown(other.ask("a")) == shown(shop.ask("a"))
    assert other.engine.waiting == 2
    assert list(other.ask("b", now_ms=NOW + 2_501).degraded) == ["sequence_late"]
    assert other.encode() == 2


def test_a_vector_of_another_width_never_counts(shop, tmp_path):
    shop.put(view("i3"))
    shop.encode()
    shop.engine.save_snapshot(str(tmp_path / "one.snapshot"))
    (tmp_path / "again").mkdir()
    other = EncodedShop(COUNT)
    other.engine.load_snapshot(str(tmp_path / "one.snapshot"))
    other.load(write_bundle(tmp_path / "again" / "one", NAMES, item_vectors(COUNT, width=2 * WIDTH)))
    assert other.ask().slates[0].items[0].reason != REASON_NEXT_ITEM
    assert other.encode() == 1
    assert other.ask().slates[0].items[0].reason == REASON_NEXT_ITEM


def test_a_visitor_without_a_vector_pays_a_pointer(shop):
    shop.put(view("i3", visitor="a"))
    light = shop.engine.stats()["visitor_bytes"]
    shop.encode()
    stats = shop.engine.stats()
    assert stats["sequence_bytes"] == stats["visitor_bytes"] - light == 32 + WIDTH


def test_items_without_a_vector_are_never_proposed(tmp_path):
    vectors = item_vectors(COUNT)
    vectors[10:] = 0
    shop = EncodedShop(COUNT)
    shop.install(write_bundle(tmp_path / "one", NAMES, vectors))
    shop.put(view("i3"))
    shop.encode()
    response = shop.ask(size=30)
    proposed = {item.item_id for item in response.slates[0].items if "sequence" in item.sources}
    assert proposed
    assert proposed <= {f"i{n}" for n in range(10)}
    assert len(shown(response)) == 30
    assert list(response.degraded) == []


@pytest.mark.parametrize("missing", FILES)
def test_the_files_of_an_encoder_come_together(tmp_path, missing):
    with pytest.raises(BundleError, match=f"{missing} is not in the manifest; export all of .*, or none of them"):
        EncodedShop(1).load(write_bundle(tmp_path / "one", NAMES, item_vectors(COUNT), without=[missing]))


@pytest.mark.parametrize(
    ("names", "vectors"),
    [([f"other{n}" for n in range(COUNT)], item_vectors(COUNT)), (NAMES, np.zeros((COUNT, WIDTH), np.float32))],
    ids=["another catalogue", "no item has a vector"],
)
def test_an_encoder_that_knows_no_item_of_the_shop_is_said(tmp_path, names, vectors):
    shop = EncodedShop(COUNT)
    shop.install(write_bundle(tmp_path / "one", names, vectors))
    shop.put(view("i3"))
    shop.encode()
    response = shop.ask()
    assert list(response.degraded) == ["sequence_vectors_missing"]
    assert len(shown(response)) == 10


def test_a_bundle_without_an_encoder_promises_none(tmp_path):
    shop = EncodedShop(COUNT)
    shop.install(write_bundle(tmp_path / "one", NAMES, None))
    shop.put(view("i3"))
    assert shop.engine.waiting == 0
    assert list(shop.ask().degraded) == []
