"""Decisions of calls that wait together: each has its own answer, and other calls get their turn."""

import asyncio
from types import SimpleNamespace

import pytest

from server.clock import ShiftedClock
from server.services.recommendations import RecommendationService


class FakeModels:
    def __init__(self):
        self.asked = []

    def decide(self, request, _now_ms):
        self.asked.append(request)
        if request == b"bad":
            raise ValueError("bad")
        return SimpleNamespace(response=request, decision=b"", degraded=[], stage_us=[], visitor_key="", shadowed=False)


@pytest.fixture
def models():
    return FakeModels()


@pytest.fixture
def service(models):
    return RecommendationService(None, models, None, None, ShiftedClock(0))


async def test_a_fault_and_a_caller_that_left_touch_no_other_call(service, models):
    calls = [asyncio.create_task(service.recommend(request)) for request in (b"a", b"bad", b"gone", b"b")]
    calls[2].cancel()
    first, bad, gone, last = await asyncio.gather(*calls, return_exceptions=True)
    assert (first, last) == (b"a", b"b")
    assert isinstance(bad, ValueError)
    assert isinstance(gone, asyncio.CancelledError)
    assert b"gone" not in models.asked


async def test_a_caller_that_leaves_while_it_waits_is_passed_over(service, models):
    leaving = asyncio.create_task(service.recommend(b"gone"))
    asyncio.get_running_loop().call_soon(leaving.cancel)
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    assert await service.recommend(b"a") == b"a"
    assert models.asked == [b"a"]


async def test_other_work_gets_its_turn_between_many_decisions(service, models):
    async def other():
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return len(models.asked)

    calls = [service.recommend(str(number).encode()) for number in range(200)]
    *answers, asked = await asyncio.gather(*calls, other())
    assert [int(answer) for answer in answers] == list(range(200))
    assert asked < 100
