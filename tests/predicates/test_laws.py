"""The laws of `any_of`, `all_of` and `not_`, over sync and async predicates alike: Kleene's three-valued logic."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from fastapi_maintenance.predicates import all_of, always, any_of, never, not_
from fastapi_maintenance.typing import ExemptCallback, Predicate
from tests.strategies import (
    ASYNC_MAKERS,
    HIDDEN_MAKERS,
    MAKERS,
    PATHS,
    REQUESTS,
    SYNC_MAKERS,
    Known,
    drive,
    kleene_and,
    kleene_or,
    make_known,
    predicates,
    single_predicates,
    verdict_of,
    verdicts_of,
)

Combinator = Callable[..., Any]

anything = predicates()
sync_only = predicates(tuple(SYNC_MAKERS))
several = st.lists(single_predicates(), max_size=4)
combinators = st.sampled_from((any_of, all_of))
each_combinator = pytest.mark.parametrize("combinator", [any_of, all_of])

YES, NO = (True,) * len(PATHS), (False,) * len(PATHS)
REQUEST = REQUESTS[0]


# What they mean


@given(anything)
def test_a_predicate_and_every_combination_answers_as_its_parts_do(one: Known) -> None:
    """Held against the greatest, the least and the opposite of the answers, which `Known` works out by itself."""
    assert one.answers == verdicts_of(one.predicate)


@given(several)
def test_any_of_is_the_greatest_verdict_and_all_of_the_least(parts: list[Known]) -> None:
    asked = [part.predicate for part in parts]
    answers = list(zip(*(part.answers for part in parts), strict=True)) or [()] * len(PATHS)
    assert tuple(map(kleene_or, answers)) == verdicts_of(any_of(*asked))
    assert tuple(map(kleene_and, answers)) == verdicts_of(all_of(*asked))


@given(several)
def test_where_nothing_is_unknown_any_of_is_any_and_all_of_is_all(parts: list[Known]) -> None:
    asked = [part.predicate for part in parts]
    answers = list(zip(*(part.answers for part in parts), strict=True)) or [()] * len(PATHS)
    for each, found_any, found_all in zip(
        answers, verdicts_of(any_of(*asked)), verdicts_of(all_of(*asked)), strict=True
    ):
        assert None in each or (any(each), all(each)) == (found_any, found_all)


TRUTH_TABLE = [
    # one, other, any_of, all_of
    (True, True, True, True),
    (True, None, True, None),
    (True, False, True, False),
    (None, True, True, None),
    (None, None, None, None),
    (None, False, None, False),
    (False, True, True, False),
    (False, None, None, False),
    (False, False, False, False),
]


@pytest.mark.parametrize(("one", "other", "either", "both"), TRUTH_TABLE)
def test_the_truth_table_is_kleenes(
    one: bool | None, other: bool | None, either: bool | None, both: bool | None
) -> None:
    for kind in MAKERS:
        p, q = (make_known(kind, (answer,) * len(PATHS)).predicate for answer in (one, other))
        assert either is verdict_of(any_of(p, q), REQUEST)
        assert both is verdict_of(all_of(p, q), REQUEST)


@pytest.mark.parametrize(("verdict", "opposite"), [(True, False), (None, None), (False, True)])
def test_the_negation_of_unknown_is_unknown(verdict: bool | None, opposite: bool | None) -> None:
    for kind in MAKERS:
        assert opposite is verdict_of(not_(make_known(kind, (verdict,) * len(PATHS)).predicate), REQUEST)


# Units and zeros


def test_any_of_nothing_is_never() -> None:
    assert NO == verdicts_of(never) == verdicts_of(any_of())


def test_all_of_nothing_is_always() -> None:
    assert YES == verdicts_of(always) == verdicts_of(all_of())


@given(anything)
def test_never_is_the_identity_of_any_of(p: Known) -> None:
    assert p.answers == verdicts_of(any_of(never, p.predicate)) == verdicts_of(any_of(p.predicate, never))


@given(anything)
def test_always_is_the_identity_of_all_of(p: Known) -> None:
    assert p.answers == verdicts_of(all_of(always, p.predicate)) == verdicts_of(all_of(p.predicate, always))


@given(anything)
def test_always_absorbs_in_any_of_and_never_in_all_of(p: Known) -> None:
    assert YES == verdicts_of(any_of(always, p.predicate)) == verdicts_of(any_of(p.predicate, always))
    assert NO == verdicts_of(all_of(never, p.predicate)) == verdicts_of(all_of(p.predicate, never))


# Laws


@given(combinators, anything)
def test_a_combination_of_one_is_that_one(combinator: Combinator, p: Known) -> None:
    assert p.answers == verdicts_of(combinator(p.predicate))


@given(combinators, anything)
def test_idempotence(combinator: Combinator, p: Known) -> None:
    assert p.answers == verdicts_of(combinator(p.predicate, p.predicate))


@given(combinators, anything, anything, anything)
def test_associativity(combinator: Combinator, p: Known, q: Known, r: Known) -> None:
    flat = verdicts_of(combinator(p.predicate, q.predicate, r.predicate))
    assert flat == verdicts_of(combinator(combinator(p.predicate, q.predicate), r.predicate))
    assert flat == verdicts_of(combinator(p.predicate, combinator(q.predicate, r.predicate)))


@given(combinators, several, st.randoms(use_true_random=False))
def test_independence_of_order(combinator: Combinator, parts: list[Known], randomly: Any) -> None:  # noqa: ANN401 -- a Random of Hypothesis
    asked = [part.predicate for part in parts]
    expected = verdicts_of(combinator(*asked))
    assert expected == verdicts_of(combinator(*reversed(asked)))
    randomly.shuffle(asked)
    assert expected == verdicts_of(combinator(*asked))


@given(several)
def test_de_morgan_for_any_of(parts: list[Known]) -> None:
    none_of = not_(any_of(*(part.predicate for part in parts)))
    assert verdicts_of(all_of(*(not_(part.predicate) for part in parts))) == verdicts_of(none_of)


@given(several)
def test_de_morgan_for_all_of(parts: list[Known]) -> None:
    not_all_of = not_(all_of(*(part.predicate for part in parts)))
    assert verdicts_of(any_of(*(not_(part.predicate) for part in parts))) == verdicts_of(not_all_of)


@given(anything)
def test_double_negation(p: Known) -> None:
    assert p.answers == verdicts_of(not_(not_(p.predicate)))


@given(several)
def test_what_is_unknown_now_and_learned_later_changes_no_verdict_that_was_known(parts: list[Known]) -> None:
    """Monotonicity: to know more never blocks what was exempt, and never exempts what was blocked for certain."""
    for combinator in (any_of, all_of):
        combined = combinator(*(part.predicate for part in parts))
        for learned in (True, False):
            told = [
                make_known("function", tuple(learned if answer is None else answer for answer in part.answers))
                for part in parts
            ]
            for before, after in zip(
                verdicts_of(combined), verdicts_of(combinator(*(part.predicate for part in told))), strict=True
            ):
                assert before is None or before is after


@given(anything)
def test_doubt_exempts_under_neither_sign(p: Known) -> None:
    for answer, positive, negative in zip(
        p.answers, verdicts_of(p.predicate), verdicts_of(not_(p.predicate)), strict=True
    ):
        assert (answer is None) == (positive is None) == (negative is None)


@given(anything)
def test_the_excluded_middle_holds_but_for_the_unknown(p: Known) -> None:
    assert tuple(None if answer is None else True for answer in p.answers) == verdicts_of(
        any_of(p.predicate, not_(p.predicate))
    )
    assert tuple(None if answer is None else False for answer in p.answers) == verdicts_of(
        all_of(p.predicate, not_(p.predicate))
    )


@pytest.mark.parametrize("kind", list(MAKERS))
def test_the_excluded_middle_and_non_contradiction_no_longer_hold_for_the_unknown(kind: str) -> None:
    unknown = make_known(kind, (None,) * len(PATHS)).predicate
    assert verdict_of(any_of(unknown, not_(unknown)), REQUEST) is None
    assert verdict_of(all_of(unknown, not_(unknown)), REQUEST) is None


@given(anything, anything, anything)
def test_each_distributes_over_the_other(p: Known, q: Known, r: Known) -> None:
    one, two, three = p.predicate, q.predicate, r.predicate
    expected = verdicts_of(all_of(any_of(one, two), any_of(one, three)))
    assert expected == verdicts_of(any_of(one, all_of(two, three)))
    expected = verdicts_of(any_of(all_of(one, two), all_of(one, three)))
    assert expected == verdicts_of(all_of(one, any_of(two, three)))


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_answers_are_the_same_on_an_event_loop_where_predicates_wait(loop: str) -> None:
    """All pairs of answers and of ways to make a predicate, the async ones waiting for the loop."""

    def waiting(known: Known) -> ExemptCallback:
        async def predicate(request: Request, /) -> bool | None:
            await anyio.lowlevel.checkpoint()
            return verdict_of(known.predicate, request)

        return known.predicate if known.text in SYNC_MAKERS else predicate

    async def answers() -> list[tuple[bool | None, ...]]:
        result = []
        for p in (make_known(kind, (True, True, False)) for kind in MAKERS):
            for q in (make_known(kind, (True, False, False)) for kind in MAKERS):
                asked = waiting(p), waiting(q)
                for predicate in (any_of(*asked), all_of(*asked), not_(asked[0])):
                    said = [predicate(request) for request in REQUESTS]
                    result.append(tuple([await it if inspect.isawaitable(it) else it for it in said]))
        return result

    expected = [(True, True, False), (True, False, False), (False, False, True)] * len(MAKERS) ** 2
    assert expected == anyio.run(answers, backend=loop)


# Sync and async


@given(sync_only)
def test_a_combination_of_sync_predicates_is_sync(p: Known) -> None:
    for predicate in (any_of(p.predicate), all_of(p.predicate, p.predicate), not_(p.predicate)):
        assert not inspect.iscoroutinefunction(predicate)
        assert {bool, type(None)} >= {type(predicate(request)) for request in REQUESTS}


@given(anything)
def test_a_combination_with_an_async_part_is_seen_to_be_async(p: Known) -> None:
    for predicate in (any_of(never, p.predicate), all_of(p.predicate, always), not_(p.predicate)):
        assert p.declared_async is inspect.iscoroutinefunction(predicate)


@pytest.mark.parametrize("kind", [*ASYNC_MAKERS, *HIDDEN_MAKERS])
def test_a_coroutine_is_never_taken_for_true(kind: str) -> None:
    """Whatever it is returned by: an async function, method or object, a partial of one, or a lambda."""
    no = make_known(kind, NO).predicate
    assert NO == verdicts_of(any_of(no)) == verdicts_of(all_of(no)) == verdicts_of(not_(not_(no)))
    assert YES == verdicts_of(not_(no)) == verdicts_of(all_of(not_(no)))
    assert NO == verdicts_of(any_of(never, no)) == verdicts_of(any_of(no, never))
    assert NO == verdicts_of(all_of(always, no)) == verdicts_of(all_of(no, always))
    assert NO == verdicts_of(partial(any_of(no)))


@pytest.mark.parametrize("kind", list(HIDDEN_MAKERS))
def test_an_awaitable_that_comes_as_a_surprise_makes_the_answer_awaitable(kind: str) -> None:
    """Only for the request for which it comes: before it, the combination may have decided."""
    no = make_known(kind, NO).predicate
    answers = [any_of(no)(REQUEST), all_of(no)(REQUEST), not_(no)(REQUEST)]
    assert [True] * 3 == [inspect.isawaitable(answer) for answer in answers]
    assert [False, False, True] == [drive(cast("Awaitable[bool | None]", answer)) for answer in answers]
    decided: list[object] = [any_of(always, no)(REQUEST), all_of(never, no)(REQUEST)]
    assert [True, False] == decided


@pytest.mark.parametrize("answer", [1, "yes", 0, "", always, iter(())])
def test_what_merely_counts_as_true_or_false_is_refused(answer: object) -> None:
    async def wait(request: Request, /) -> bool:  # noqa: ARG001 -- a predicate is given the request
        return cast("bool", answer)

    for careless in (cast("Predicate", lambda _: answer), wait):
        for combination in (any_of(careless), all_of(careless), not_(careless)):
            with pytest.raises(TypeError, match=r"^what a predicate returns must be True, False or None, got "):
                verdict_of(combination, REQUEST)


# How far they ask


class Asked:
    """Predicates that note when they are asked, and their coroutines, to see what became of them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.coroutines: list[Coroutine[Any, Any, bool | None]] = []

    def predicate(self, name: str, known: Known) -> Callable[[Request], bool | Awaitable[bool | None] | None]:
        """Return a predicate that keeps how it is asked and what it returns."""

        def ask(request: Request, /) -> bool | Awaitable[bool | None] | None:
            self.names.append(name)
            answer = known.predicate(request)
            if inspect.iscoroutine(answer):
                self.coroutines.append(answer)
            return answer

        async def ask_async(request: Request, /) -> bool | None:
            answer = ask(request)
            return await answer if inspect.isawaitable(answer) else answer

        return ask_async if known.declared_async else ask


@given(several)
def test_they_ask_in_order_and_no_further_than_needed_and_leave_nothing_unawaited(parts: list[Known]) -> None:
    rules: list[tuple[Combinator, bool]] = [(any_of, True), (all_of, False)]
    for combinator, decides in rules:
        for place, request in enumerate(REQUESTS):
            asked = Asked()
            verdict_of(combinator(*(asked.predicate(str(n), part) for n, part in enumerate(parts))), request)

            answers = [part.answers[place] for part in parts]
            needed = answers.index(decides) + 1 if decides in answers else len(answers)
            assert [str(n) for n in range(needed)] == asked.names
            assert {inspect.CORO_CLOSED} >= {inspect.getcoroutinestate(it) for it in asked.coroutines}


@each_combinator
@pytest.mark.parametrize("kind", list(MAKERS))
def test_the_error_of_a_part_goes_through_and_no_part_after_it_is_asked(combinator: Combinator, kind: str) -> None:
    def fail(request: Request, /) -> bool:
        message = f"cannot tell {request.url.path}"
        raise LookupError(message)

    async def fail_async(request: Request, /) -> bool:
        return fail(request)

    neutral = make_known(kind, NO if combinator is any_of else YES).predicate
    for failing in (fail, fail_async):
        asked = Asked()
        later = asked.predicate("later", make_known(kind, YES))
        with pytest.raises(LookupError, match=r"^cannot tell /a$"):
            verdict_of(combinator(neutral, failing, later), REQUEST)
        assert [] == asked.names


# Names and arguments


@pytest.mark.parametrize("part", [always, make_known("async function", YES).predicate])
def test_a_combination_is_named_after_its_combinator(part: Predicate) -> None:
    names = [(it.__name__, it.__qualname__) for it in map(cast("Any", lambda f: f(part)), (any_of, all_of, not_))]
    assert [("any_of", "any_of"), ("all_of", "all_of"), ("not_", "not_")] == names


@each_combinator
def test_a_part_that_cannot_be_called_is_a_type_error(combinator: Combinator) -> None:
    with pytest.raises(TypeError, match=r"^predicates must be callable, got str '/health'$"):
        combinator(always, "/health")
    with pytest.raises(TypeError, match=r"^predicates must be callable, got list \["):
        combinator([always, never])
    with pytest.raises(TypeError, match=r"^predicate must be callable, got bool True$"):
        not_(True)  # type: ignore[call-overload]  # the error under test
