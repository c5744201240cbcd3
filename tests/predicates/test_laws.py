"""The laws of `any_of`, `all_of` and `not_`, over sync and async predicates alike: Kleene's three-valued logic."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from itertools import product
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from fastapi_maintenance import bypass_cookie
from fastapi_maintenance.predicates import (
    all_of,
    always,
    any_of,
    header_equals,
    host_is,
    never,
    not_,
    path_prefix,
    safe_method,
)
from fastapi_maintenance.predicates.bypass import BypassCookie
from fastapi_maintenance.typing import Predicate
from tests.strategies import (
    ASYNC_MAKERS,
    HIDDEN_MAKERS,
    MAKERS,
    REQUEST,
    SYNC_MAKERS,
    drive,
    make_predicate,
    predicates,
    single_predicates,
    verdict_of,
)

Combinator = Callable[..., Any]
Verdict = bool | None

anything = predicates()
several = st.lists(anything, max_size=4)
combinators = st.sampled_from((any_of, all_of))
each_combinator = pytest.mark.parametrize("combinator", [any_of, all_of])


# What they mean


@given(several)
def test_any_of_is_true_if_a_part_is_and_else_unknown_if_a_part_is(parts: list[Any]) -> None:
    said = [verdict_of(part) for part in parts]
    expected = True if True in said else None if None in said else False
    assert verdict_of(any_of(*parts)) is expected


@given(several)
def test_all_of_is_false_if_a_part_is_and_else_unknown_if_a_part_is(parts: list[Any]) -> None:
    said = [verdict_of(part) for part in parts]
    expected = False if False in said else None if None in said else True
    assert verdict_of(all_of(*parts)) is expected


@given(anything)
def test_not_is_the_opposite_and_of_unknown_unknown(p: Any) -> None:  # noqa: ANN401 -- sync or async
    assert verdict_of(not_(p)) is {True: False, False: True, None: None}[verdict_of(p)]


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
def test_the_truth_table_is_kleenes_for_every_pair_of_kinds(
    one: Verdict, other: Verdict, either: Verdict, both: Verdict
) -> None:
    for kinds in product(MAKERS, repeat=2):
        pair = make_predicate(kinds[0], one), make_predicate(kinds[1], other)
        assert verdict_of(any_of(*pair)) is either
        assert verdict_of(all_of(*pair)) is both


# Units and zeros


def test_any_of_nothing_is_never_and_all_of_nothing_is_always() -> None:
    said = [verdict_of(predicate) for predicate in (never, any_of(), always, all_of())]
    assert said == [False, False, True, True]


@given(anything)
def test_never_is_the_identity_of_any_of_and_the_zero_of_all_of(p: Any) -> None:  # noqa: ANN401 -- sync or async
    assert verdict_of(any_of(never, p)) is verdict_of(any_of(p, never)) is verdict_of(p)
    assert verdict_of(all_of(never, p)) is verdict_of(all_of(p, never)) is False


@given(anything)
def test_always_is_the_identity_of_all_of_and_the_zero_of_any_of(p: Any) -> None:  # noqa: ANN401 -- sync or async
    assert verdict_of(all_of(always, p)) is verdict_of(all_of(p, always)) is verdict_of(p)
    assert verdict_of(any_of(always, p)) is verdict_of(any_of(p, always)) is True


# Laws


@given(combinators, anything)
def test_idempotence(combinator: Combinator, p: Any) -> None:  # noqa: ANN401 -- sync or async
    assert verdict_of(combinator(p)) is verdict_of(combinator(p, p)) is verdict_of(p)


@given(combinators, anything, anything, anything)
def test_associativity(combinator: Combinator, p: Any, q: Any, r: Any) -> None:  # noqa: ANN401 -- sync or async
    flat = verdict_of(combinator(p, q, r))
    assert verdict_of(combinator(combinator(p, q), r)) is flat
    assert verdict_of(combinator(p, combinator(q, r))) is flat


@given(combinators, several.flatmap(lambda parts: st.tuples(st.just(parts), st.permutations(parts))))
def test_independence_of_order(combinator: Combinator, orders: tuple[list[Any], list[Any]]) -> None:
    one, other = orders
    assert verdict_of(combinator(*one)) is verdict_of(combinator(*other))


@given(several)
def test_de_morgan(parts: list[Any]) -> None:
    opposites = [not_(part) for part in parts]
    assert verdict_of(not_(any_of(*parts))) is verdict_of(all_of(*opposites))
    assert verdict_of(not_(all_of(*parts))) is verdict_of(any_of(*opposites))


@given(anything)
def test_double_negation(p: Any) -> None:  # noqa: ANN401 -- sync or async
    assert verdict_of(not_(not_(p))) is verdict_of(p)


@given(
    combinators, st.lists(st.tuples(st.sampled_from(list(MAKERS)), st.sampled_from((True, False, None))), max_size=4)
)
def test_what_is_unknown_now_and_learned_later_changes_no_verdict_that_was_known(
    combinator: Combinator, parts: list[tuple[str, Verdict]]
) -> None:
    """Monotonicity: to know more never blocks what was exempt, and never exempts what was blocked for certain."""
    before = verdict_of(combinator(*(make_predicate(kind, verdict) for kind, verdict in parts)))
    for learned in (True, False):
        told = [make_predicate(kind, learned if verdict is None else verdict) for kind, verdict in parts]
        assert before in (None, verdict_of(combinator(*told)))


@given(anything)
def test_the_excluded_middle_and_non_contradiction_hold_but_for_the_unknown(p: Any) -> None:  # noqa: ANN401 -- sync or async
    known = verdict_of(p) is not None
    assert verdict_of(any_of(p, not_(p))) is (True if known else None)
    assert verdict_of(all_of(p, not_(p))) is (False if known else None)


@given(anything, anything, anything)
def test_each_distributes_over_the_other(p: Any, q: Any, r: Any) -> None:  # noqa: ANN401 -- sync or async
    assert verdict_of(any_of(p, all_of(q, r))) is verdict_of(all_of(any_of(p, q), any_of(p, r)))
    assert verdict_of(all_of(p, any_of(q, r))) is verdict_of(any_of(all_of(p, q), all_of(p, r)))


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_answers_are_the_same_on_an_event_loop_where_predicates_wait(loop: str) -> None:
    def waiting(verdict: Verdict) -> Any:  # noqa: ANN401 -- an async predicate
        async def predicate(_request: Request, /) -> Verdict:
            await anyio.lowlevel.checkpoint()
            return verdict

        return predicate

    async def main() -> None:
        for one, other, either, both in TRUTH_TABLE:
            assert await any_of(waiting(one), waiting(other))(REQUEST) is either
            assert await all_of(waiting(one), make_predicate("function", other))(REQUEST) is both

    anyio.run(main, backend=loop)


# Sync and async


@given(predicates(SYNC_MAKERS))
def test_a_combination_of_sync_predicates_is_sync(p: Any) -> None:  # noqa: ANN401 -- a sync one
    for predicate in (any_of(p), all_of(p, p), not_(p)):
        assert not inspect.iscoroutinefunction(predicate.__call__)
        assert not inspect.isawaitable(predicate(REQUEST))


@given(combinators, st.lists(single_predicates(SYNC_MAKERS)), single_predicates(ASYNC_MAKERS))
def test_a_combination_with_an_async_part_is_seen_to_be_async_at_any_depth(
    combinator: Combinator,
    before: list[Any],
    part: Any,  # noqa: ANN401 -- an async one
) -> None:
    combination = combinator(*before, part)
    for predicate in (combination, not_(combination), any_of(combination), all_of(combination)):
        assert inspect.iscoroutinefunction(predicate.__call__)


@pytest.mark.parametrize("kind", [*ASYNC_MAKERS, *HIDDEN_MAKERS])
def test_a_coroutine_is_never_taken_for_true(kind: str) -> None:
    """Whatever it is returned by: an async function, method or object, a partial of one, or a lambda."""
    no = make_predicate(kind, False)
    assert verdict_of(not_(no)) is verdict_of(all_of(not_(no))) is True
    for predicate in (
        any_of(no),
        all_of(no),
        not_(not_(no)),
        any_of(never, no),
        all_of(always, no),
        partial(any_of(no)),
    ):
        assert verdict_of(predicate) is False


@pytest.mark.parametrize("kind", list(HIDDEN_MAKERS))
def test_an_awaitable_that_comes_as_a_surprise_makes_the_answer_awaitable(kind: str) -> None:
    """Only for the request for which it comes: before it, the combination may have decided."""
    no = make_predicate(kind, False)
    answers = [any_of(no)(REQUEST), all_of(no)(REQUEST), not_(no)(REQUEST)]
    assert [inspect.isawaitable(answer) for answer in answers] == [True] * 3
    assert [drive(cast("Awaitable[bool | None]", answer)) for answer in answers] == [False, False, True]
    decided: list[object] = [any_of(always, no)(REQUEST), all_of(never, no)(REQUEST)]
    assert decided == [True, False]


@pytest.mark.parametrize("answer", [1, "yes", 0, "", always, iter(())])
def test_what_merely_counts_as_true_or_false_is_refused(answer: object) -> None:
    async def wait(request: Request, /) -> bool:  # noqa: ARG001 -- a predicate is given the request
        return cast("bool", answer)

    for careless in (cast("Predicate", lambda _: answer), wait):
        for combination in (any_of(careless), all_of(careless), not_(careless)):
            with pytest.raises(TypeError, match=r"^the result of a predicate must be True, False or None, got "):
                verdict_of(combination)


# Operators

BUILT_IN = {
    "always": always,
    "never": never,
    "safe_method": safe_method,
    "unknown": host_is("example.com"),
    "factory": path_prefix("/"),
    "any_of": any_of(never),
    "all_of": all_of(always, host_is("example.com")),
    "not_": not_(always),
    "async": any_of(make_predicate("async method", False)),
    "bypass": bypass_cookie("correct horse battery staple"),
}
built_in = st.sampled_from(list(BUILT_IN.values()))


@given(built_in, anything)
@example(BUILT_IN["async"], lambda _: True)
def test_the_operators_are_the_combinators(p: Any, q: Any) -> None:  # noqa: ANN401 -- sync or async
    for one, other in ((p, q), (q, p)):
        for made, expected in ((one | other, any_of(one, other)), (one & other, all_of(one, other))):
            assert (type(made), made.__name__, made.parts) == (type(expected), expected.__name__, (one, other))
            assert verdict_of(made) is verdict_of(expected)
    assert verdict_of(~p) is verdict_of(not_(p))
    assert type(~p) is type(not_(p))


@pytest.mark.parametrize("predicate", BUILT_IN.values(), ids=list(BUILT_IN))
def test_the_truth_of_a_predicate_is_refused_with_what_to_write(predicate: Any) -> None:  # noqa: ANN401 -- sync or async
    refused: list[Callable[[], object]] = [
        lambda: predicate or always,
        lambda: predicate and always,
        lambda: not predicate,
        lambda: bool(predicate),
    ]
    for use in refused:
        with pytest.raises(TypeError, match=r"^.* has no truth value.* any_of\(.* all_of\(.* not_\("):
            use()


@pytest.mark.parametrize("other", ["/health", None, True])
def test_an_operator_refuses_what_cannot_be_called(other: Any) -> None:  # noqa: ANN401 -- anything
    refused: list[Callable[[], object]] = [
        lambda: always | other,
        lambda: other | always,
        lambda: always & other,
        lambda: other & always,
    ]
    for use in refused:
        with pytest.raises(TypeError, match=r"^predicates must be callable, got "):
            use()


def test_a_predicate_is_shown_by_its_factory_and_without_secrets() -> None:
    exempt = path_prefix("/health") & header_equals("X-Key", "secret") | ~safe_method
    assert repr(exempt) == "any_of(all_of(path_prefix('/health'), header_equals('X-Key', ...)), not_(safe_method))"


@pytest.mark.parametrize("predicate", [always, never, safe_method, BUILT_IN["bypass"]])
def test_a_predicate_that_a_module_has_is_copied_and_pickled(predicate: Any) -> None:  # noqa: ANN401 -- any
    for copied in (copy.deepcopy(predicate), pickle.loads(pickle.dumps(predicate))):  # noqa: S301 -- our own
        assert copied is predicate or isinstance(predicate, BypassCookie)
        assert verdict_of(copied) is verdict_of(predicate)


# How far they ask


class Asked:
    """Predicates that note when they are asked, and their coroutines, to see what became of them."""

    def __init__(self) -> None:
        self.names: list[int] = []
        self.coroutines: list[Coroutine[Any, Any, Verdict]] = []

    def predicate(self, name: int, asked: Any) -> Any:  # noqa: ANN401 -- sync or async
        """Return a predicate that keeps how it is asked and what it returns."""

        def ask(request: Request, /) -> Any:  # noqa: ANN401 -- a verdict, or an awaitable
            self.names.append(name)
            answer = asked(request)
            if inspect.iscoroutine(answer):
                self.coroutines.append(answer)
            return answer

        async def ask_async(request: Request, /) -> Verdict:
            answer = ask(request)
            return cast("Verdict", await answer if inspect.isawaitable(answer) else answer)

        return ask_async if inspect.iscoroutinefunction(asked) else ask


@given(st.sampled_from([(any_of, True), (all_of, False)]), several)
def test_they_ask_in_order_and_no_further_than_needed_and_leave_nothing_unawaited(
    rule: tuple[Combinator, bool], parts: list[Any]
) -> None:
    combinator, decides = rule
    said = [verdict_of(part) for part in parts]
    needed = said.index(decides) + 1 if decides in said else len(said)
    asked = Asked()
    verdict_of(combinator(*(asked.predicate(number, part) for number, part in enumerate(parts))))

    assert asked.names == list(range(needed))
    assert {inspect.getcoroutinestate(it) for it in asked.coroutines} <= {inspect.CORO_CLOSED}


@each_combinator
@pytest.mark.parametrize("kind", list(MAKERS))
def test_the_error_of_a_part_goes_through_and_no_part_after_it_is_asked(combinator: Combinator, kind: str) -> None:
    def fail(request: Request, /) -> bool:
        message = f"cannot tell {request.url.path}"
        raise LookupError(message)

    async def fail_async(request: Request, /) -> bool:
        return fail(request)

    neutral = make_predicate(kind, combinator is all_of)
    for failing in (fail, fail_async):
        asked = Asked()
        with pytest.raises(LookupError, match=r"^cannot tell /$"):
            verdict_of(combinator(neutral, failing, asked.predicate(0, always)))
        assert asked.names == []


# Names and arguments


@pytest.mark.parametrize("part", [always, make_predicate("async method", True)])
def test_a_combination_is_named_after_its_combinator(part: Predicate) -> None:
    names = [(it.__name__, it.__qualname__) for it in map(cast("Any", lambda f: f(part)), (any_of, all_of, not_))]
    assert names == [("any_of", "any_of"), ("all_of", "all_of"), ("not_", "not_")]


@each_combinator
def test_a_part_that_cannot_be_called_is_a_type_error(combinator: Combinator) -> None:
    with pytest.raises(TypeError, match=r"^predicates must be callable, got str '/health'$"):
        combinator(always, "/health")
    with pytest.raises(TypeError, match=r"^predicates must be callable, got list \["):
        combinator([always, never])
    with pytest.raises(TypeError, match=r"^predicate must be callable, got bool True$"):
        not_(True)  # type: ignore[call-overload]  # the error under test
