import asyncio

from evalrun.runner.limits import AdaptiveLimit, FixedLimit, Slots


def _round(limit: AdaptiveLimit, now_s: float, in_flight: int | None = None) -> None:
    """One clean round: as many answers as the limit, with that many in flight."""
    size = limit.current
    limit.started(in_flight if in_flight is not None else size)
    for _ in range(max(size, 4)):
        limit.succeeded(now_s)


def test_doubles_per_clean_round_until_the_first_429() -> None:
    limit = AdaptiveLimit(start=20, maximum=100)
    seen = []
    for second in range(4):
        _round(limit, second)
        seen.append(limit.current)
    assert seen == [40, 80, 100, 100]


def test_a_round_that_did_not_fill_the_limit_does_not_count() -> None:
    limit = AdaptiveLimit(start=20)
    _round(limit, 0.0, in_flight=15)
    assert limit.current == 20
    _round(limit, 1.0, in_flight=16)
    assert limit.current == 40


def test_a_429_cuts_by_a_fifth_and_starts_a_cooldown() -> None:
    limit = AdaptiveLimit(start=100)
    limit.rate_limited(0.0, None)
    assert limit.current == 80
    limit.rate_limited(1.0, None)
    assert limit.current == 80, "refusals of requests sent before the cut do not cut again"
    _round(limit, 14.9)
    assert limit.current == 80
    _round(limit, 15.1)
    assert limit.current == 84, "after a 429 it grows by 5 %"


def test_retry_after_lengthens_the_cooldown() -> None:
    limit = AdaptiveLimit(start=100)
    limit.rate_limited(0.0, 60.0)
    _round(limit, 59.0)
    assert limit.current == 80
    _round(limit, 61.0)
    assert limit.current == 84


def test_server_errors_pause_growth_without_a_cut() -> None:
    limit = AdaptiveLimit(start=20)
    limit.started(20)
    for _ in range(19):
        limit.succeeded(0.0)
    limit.disturbed()
    limit.succeeded(0.1)
    assert limit.current == 20


def test_changes_are_recorded_with_their_cause() -> None:
    limit = AdaptiveLimit(start=20)
    _round(limit, 1.0)
    limit.rate_limited(2.0, None)
    assert [(change.limit, change.cause) for change in limit.changes] == [
        (40, "doubled"),
        (32, "rate limited"),
    ]


def test_a_small_limit_grows_by_one_after_a_429() -> None:
    limit = AdaptiveLimit(start=10)
    limit.rate_limited(0.0, None)
    _round(limit, 20.0)
    assert limit.current == 9


def test_a_short_retry_after_leaves_the_cooldown_as_it_is() -> None:
    limit = AdaptiveLimit(start=100)
    limit.rate_limited(0.0, 1.0)
    _round(limit, 14.0)
    assert limit.current == 80
    limit.rate_limited(14.0, 10.0)
    _round(limit, 15.0)
    assert limit.current == 84, "refusals within the cooldown do not lengthen it"


def test_what_was_in_flight_in_one_round_says_nothing_of_the_next() -> None:
    limit = AdaptiveLimit(start=20)
    _round(limit, 0.0)
    _round(limit, 1.0, in_flight=10)
    assert limit.current == 40
    limit.disturbed()
    for _ in range(40):
        limit.succeeded(2.0)
    assert limit.current == 40, "nothing was seen in flight since the disturbance"


def test_a_limit_of_one_needs_four_clean_answers_to_grow() -> None:
    limit = AdaptiveLimit(start=1)
    limit.started(1)
    for _ in range(3):
        limit.succeeded(0.0)
    assert limit.current == 1
    limit.succeeded(0.0)
    assert limit.current == 2


def test_never_below_one() -> None:
    limit = AdaptiveLimit(start=1)
    limit.rate_limited(0.0, None)
    assert limit.current == 1


def test_cells_that_share_slots_have_no_more_in_flight_than_one_would() -> None:
    limit, most, ended = FixedLimit(3), 0, 0
    slots = Slots(limit)

    async def one(at: int) -> None:
        nonlocal most, ended
        async with slots:
            most = max(most, slots.taken)
            await asyncio.sleep(0)
            ended += 1

    async def all_of_them() -> None:
        first = [asyncio.create_task(one(at)) for at in range(20)]
        await asyncio.sleep(0)
        first[5].cancel()  # while it waits: its turn goes to the next
        limit.current = 4
        await asyncio.gather(*first, return_exceptions=True)

    asyncio.run(all_of_them())
    assert (most, ended, slots.taken) == (4, 19, 0)
