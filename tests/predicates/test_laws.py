"""`predicates/combinators.py`: the laws of Kleene's three-valued logic, over sync and async predicates alike."""

from __future__ import annotations

import copy
import inspect
import operator
import pickle
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, reduce
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
from fastapi_maintenance.predicates.bypass_cookie import BypassCookie
from fastapi_maintenance.predicates.in_advance import outlook_on, paths_in, verdict_on
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


# Truth tables


@given(several)
def test_combinators_of_any_parts_follow_kleene(parts: list[Any]) -> None:
    said = [verdict_of(part) for part in parts]
    assert verdict_of(any_of(*parts)) is (True if True in said else None if None in said else False)
    assert verdict_of(all_of(*parts)) is (False if False in said else None if None in said else True)
    opposites = {True: False, False: True, None: None}
    assert [verdict_of(not_(part)) for part in parts] == [opposites[verdict] for verdict in said]


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
def test_combinators_of_any_two_kinds_follow_the_truth_table(
    one: Verdict, other: Verdict, either: Verdict, both: Verdict
) -> None:
    for kinds in product(MAKERS, repeat=2):
        pair = make_predicate(kinds[0], one), make_predicate(kinds[1], other)
        assert verdict_of(any_of(*pair)) is either
        assert verdict_of(all_of(*pair)) is both


# Laws

Law = Callable[[Any, Any, Any], tuple[Any, Any]]
LAWS: dict[str, Law] = {
    "any_of() is never": lambda *_: (any_of(), never),
    "all_of() is always": lambda *_: (all_of(), always),
    "never is the identity of any_of, left": lambda p, *_: (any_of(never, p), p),
    "never is the identity of any_of, right": lambda p, *_: (any_of(p, never), p),
    "never is the zero of all_of, left": lambda p, *_: (all_of(never, p), never),
    "never is the zero of all_of, right": lambda p, *_: (all_of(p, never), never),
    "always is the identity of all_of, left": lambda p, *_: (all_of(always, p), p),
    "always is the identity of all_of, right": lambda p, *_: (all_of(p, always), p),
    "always is the zero of any_of, left": lambda p, *_: (any_of(always, p), always),
    "always is the zero of any_of, right": lambda p, *_: (any_of(p, always), always),
    "any_of is idempotent": lambda p, *_: (any_of(p, p), any_of(p)),
    "all_of is idempotent": lambda p, *_: (all_of(p, p), all_of(p)),
    "any_of of one is that one": lambda p, *_: (any_of(p), p),
    "all_of of one is that one": lambda p, *_: (all_of(p), p),
    "any_of is associative, left": lambda p, q, r: (any_of(any_of(p, q), r), any_of(p, q, r)),
    "any_of is associative, right": lambda p, q, r: (any_of(p, any_of(q, r)), any_of(p, q, r)),
    "all_of is associative, left": lambda p, q, r: (all_of(all_of(p, q), r), all_of(p, q, r)),
    "all_of is associative, right": lambda p, q, r: (all_of(p, all_of(q, r)), all_of(p, q, r)),
    "any_of is independent of order": lambda p, q, r: (any_of(r, p, q), any_of(p, q, r)),
    "all_of is independent of order": lambda p, q, r: (all_of(r, p, q), all_of(p, q, r)),
    "De Morgan, any_of": lambda p, q, r: (not_(any_of(p, q, r)), all_of(not_(p), not_(q), not_(r))),
    "De Morgan, all_of": lambda p, q, r: (not_(all_of(p, q, r)), any_of(not_(p), not_(q), not_(r))),
    "double negation": lambda p, *_: (not_(not_(p)), p),
    "any_of distributes over all_of": lambda p, q, r: (any_of(p, all_of(q, r)), all_of(any_of(p, q), any_of(p, r))),
    "all_of distributes over any_of": lambda p, q, r: (all_of(p, any_of(q, r)), any_of(all_of(p, q), all_of(p, r))),
}


@pytest.mark.parametrize("law", LAWS)
@given(anything, anything, anything)
def test_law_both_sides_give_one_verdict(law: str, p: Any, q: Any, r: Any) -> None:  # noqa: ANN401 -- sync or async
    one, other = LAWS[law](p, q, r)
    assert verdict_of(one) is verdict_of(other)


@given(
    combinators, st.lists(st.tuples(st.sampled_from(list(MAKERS)), st.sampled_from((True, False, None))), max_size=4)
)
def test_combinators_of_an_unknown_part_that_becomes_known_keep_a_known_verdict(
    combinator: Combinator, parts: list[tuple[str, Verdict]]
) -> None:
    """Monotonicity: to know more never blocks what was exempt, and never exempts what was blocked for certain."""
    before = verdict_of(combinator(*(make_predicate(kind, verdict) for kind, verdict in parts)))
    for learned in (True, False):
        known = [make_predicate(kind, learned if verdict is None else verdict) for kind, verdict in parts]
        assert before in (None, verdict_of(combinator(*known)))


@given(anything)
def test_combinators_of_a_known_part_and_its_opposite_decide(p: Any) -> None:  # noqa: ANN401 -- sync or async
    known = verdict_of(p) is not None
    assert verdict_of(any_of(p, not_(p))) is (True if known else None)
    assert verdict_of(all_of(p, not_(p))) is (False if known else None)


@given(anything, anything, anything)
def test_each_distributes_over_the_other(p: Any, q: Any, r: Any) -> None:  # noqa: ANN401 -- sync or async
    assert verdict_of(any_of(p, all_of(q, r))) is verdict_of(all_of(any_of(p, q), any_of(p, r)))
    assert verdict_of(all_of(p, any_of(q, r))) is verdict_of(any_of(all_of(p, q), all_of(p, r)))


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_combinators_of_predicates_that_wait_follow_the_truth_table(loop: str) -> None:
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
def test_combination_of_sync_predicates_is_sync(p: Any) -> None:  # noqa: ANN401 -- a sync one
    for predicate in (any_of(p), all_of(p, p), not_(p)):
        assert not inspect.iscoroutinefunction(predicate.__call__)
        assert not inspect.isawaitable(predicate(REQUEST))


@given(combinators, st.lists(single_predicates(SYNC_MAKERS)), single_predicates(ASYNC_MAKERS))
def test_combination_with_an_async_part_at_any_depth_is_async(
    combinator: Combinator,
    before: list[Any],
    part: Any,  # noqa: ANN401 -- an async one
) -> None:
    combination = combinator(*before, part)
    for predicate in (combination, not_(combination), any_of(combination), all_of(combination)):
        assert inspect.iscoroutinefunction(predicate.__call__)


@pytest.mark.parametrize("kind", [*ASYNC_MAKERS, *HIDDEN_MAKERS])
def test_combination_never_counts_a_coroutine_as_true(kind: str) -> None:
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
def test_combination_of_a_sync_function_that_returns_an_awaitable_returns_one(kind: str) -> None:
    """Only for that request: the combination may decide before it is asked."""
    no = make_predicate(kind, False)
    answers = [any_of(no)(REQUEST), all_of(no)(REQUEST), not_(no)(REQUEST)]
    assert [inspect.isawaitable(answer) for answer in answers] == [True] * 3
    assert [drive(cast("Awaitable[bool | None]", answer)) for answer in answers] == [False, False, True]
    decided: list[object] = [any_of(always, no)(REQUEST), all_of(never, no)(REQUEST)]
    assert decided == [True, False]


@pytest.mark.parametrize("answer", [1, "yes", 0, "", always, iter(())])
def test_combination_of_a_part_that_returns_no_verdict_raises(answer: object) -> None:
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
def test_operators_are_the_combinators(p: Any, q: Any) -> None:  # noqa: ANN401 -- sync or async
    for one, other in ((p, q), (q, p)):
        for combined, expected in ((one | other, any_of(one, other)), (one & other, all_of(one, other))):
            assert (type(combined), combined.__name__, combined.parts) == (
                type(expected),
                expected.__name__,
                (one, other),
            )
            assert verdict_of(combined) is verdict_of(expected)
    assert verdict_of(~p) is verdict_of(not_(p))
    assert type(~p) is type(not_(p))


@pytest.mark.parametrize("predicate", BUILT_IN.values(), ids=list(BUILT_IN))
def test_predicate_as_a_truth_value_raises_and_names_the_combinators(predicate: Any) -> None:  # noqa: ANN401 -- sync or async
    refused: list[Callable[[], object]] = [
        *(lambda: predicate or always, lambda: predicate and always, lambda: not predicate, lambda: bool(predicate))
    ]
    for use in refused:
        with pytest.raises(TypeError, match=r"^.* has no truth value.* any_of\(.* all_of\(.* not_\(a\) or ~a$"):
            use()


@pytest.mark.parametrize("other", ["/health", None, True])
def test_operators_with_an_operand_that_is_not_callable_raise(other: Any) -> None:  # noqa: ANN401 -- anything
    uses: list[Callable[[Any, Any], object]] = [operator.or_, operator.and_]
    for use in uses:
        for operands in ((always, other), (other, always)):
            with pytest.raises(TypeError, match=r"^predicates must be callable, got "):
                use(*operands)


@pytest.mark.parametrize(("combine", "neutral"), [(operator.or_, never), (operator.and_, always)])
def test_operators_of_thousands_of_predicates_decide(combine: Any, neutral: Any) -> None:  # noqa: ANN401 -- sync
    several = reduce(combine, [neutral] * 2000)
    for combination in (combine(several, ~neutral), combine(~neutral, several)):
        assert combination(REQUEST) is verdict_on(combination, "GET", "/") is (neutral is never)
        assert outlook_on(combination, "GET", "/").possible == {neutral is never}
    assert list(paths_in(combine(several, path_prefix("/a")))) == [("/a", True)]


def test_predicate_repr_names_its_factory_and_no_secret() -> None:
    exempt = path_prefix("/health") & header_equals("X-Key", "secret") | ~safe_method
    assert repr(exempt) == "any_of(all_of(path_prefix('/health'), header_equals('X-Key', ...)), not_(safe_method))"


@pytest.mark.parametrize("predicate", [always, never, safe_method, BUILT_IN["bypass"]])
def test_predicate_of_a_module_can_be_copied_and_pickled(predicate: Any) -> None:  # noqa: ANN401 -- any
    for copied in (copy.deepcopy(predicate), pickle.loads(pickle.dumps(predicate))):  # noqa: S301 -- our own
        assert copied is predicate or isinstance(predicate, BypassCookie)
        assert verdict_of(copied) is verdict_of(predicate)


# Order of evaluation


class Asked:
    """Records which predicates are asked, and their coroutines."""

    def __init__(self) -> None:
        self.names: list[int] = []
        self.coroutines: list[Coroutine[Any, Any, Verdict]] = []

    def predicate(self, name: int, asked: Any) -> Any:  # noqa: ANN401 -- sync or async

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
def test_combination_asks_in_order_until_it_is_decided_and_awaits_every_coroutine(
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
def test_combination_of_a_part_that_raises_raises_the_same_and_asks_no_more(combinator: Combinator, kind: str) -> None:
    def fail(request: Request, /) -> bool:
        message = f"cannot decide {request.url.path}"
        raise LookupError(message)

    async def fail_async(request: Request, /) -> bool:
        return fail(request)

    neutral = make_predicate(kind, combinator is all_of)
    for failing in (fail, fail_async):
        asked = Asked()
        with pytest.raises(LookupError, match=r"^cannot decide /$"):
            verdict_of(combinator(neutral, failing, asked.predicate(0, always)))
        assert asked.names == []


# Names and arguments


@pytest.mark.parametrize("part", [always, make_predicate("async method", True)])
def test_combination_is_named_after_its_combinator(part: Predicate) -> None:
    names = [(it.__name__, it.__qualname__) for it in map(cast("Any", lambda f: f(part)), (any_of, all_of, not_))]
    assert names == [("any_of", "any_of"), ("all_of", "all_of"), ("not_", "not_")]


@each_combinator
def test_combination_of_a_part_that_is_not_callable_raises(combinator: Combinator) -> None:
    with pytest.raises(TypeError, match=r"^predicates must be callable, got str '/health'$"):
        combinator(always, "/health")
    with pytest.raises(TypeError, match=r"^predicates must be callable, got list \["):
        combinator([always, never])
    with pytest.raises(TypeError, match=r"^predicate must be callable, got bool True$"):
        not_(True)  # type: ignore[call-overload]  # the error under test
