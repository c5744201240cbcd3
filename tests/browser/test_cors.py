"""The 503 as a script of another origin reads it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.sync_api import Browser

from fastapi_maintenance import MaintenanceState, Switch
from tests.browser.looking import CLOSED, OPEN, Service, visited
from tests.browser.npm import script_of
from tests.documents import example

READ = """(asked) => Promise.all(asked.map(async ([url, options]) => {
  try {
    const response = await fetch(url, options);
    const header = (name) => response.headers.get(name);
    const {detail} = await response.json();
    return [response.status, detail, header("Retry-After"), header("X-Maintenance-Mode")];
  } catch (error) {
    return [error.name];
  }
}))"""
"""Returns what a script can read of each response."""
PUT = {"method": "PUT", "headers": {"Content-Type": "application/json", "X-Token": "a"}, "body": '{"a": 1}'}
WITH_CREDENTIALS = {"credentials": "include"}
REQUESTS: list[dict[str, Any]] = [{}, PUT, WITH_CREDENTIALS, {**PUT, **WITH_CREDENTIALS}]
BLOCKED = [503, "Back at ten", "120", "on"]
PATHS: dict[str, list[Any]] = {
    "/inside/items": BLOCKED,
    "/problem/items": BLOCKED,
    "/blocking/items": BLOCKED,
    "/blocking/nothing": BLOCKED,
    "/unknown-layer/items": BLOCKED,
    "/mounted/shop/items": BLOCKED,
    "/outside/items": BLOCKED,
    "/outside-listed/items": BLOCKED,
    "/outside-unlisted/items": [503, "Back at ten", None, None],
    "/credentials/items": BLOCKED,
    "/outside-credentials/items": BLOCKED,
}


def test_script_of_another_origin_reads_the_blocked_response_if_it_may_read_others(
    browser: Browser, service: Service
) -> None:
    asked = [(path, request) for path in PATHS for request in REQUESTS]
    urls = [(service.at("api", path), request) for path, request in asked]
    with visited(browser, service.at("shop")) as page:
        responses = []
        for state in (OPEN, CLOSED):
            service.set(state)
            responses.append(page.evaluate(READ, urls))
    for (path, request), *found in zip(asked, *responses, strict=True):
        passed = [404, "Not Found", None, None] if "nothing" in path else [200, request.get("body", ""), None, None]
        is_allowed = "credentials" not in request or "credentials" in path
        expected = [passed, PATHS[path]] if is_allowed else [["TypeError"]] * 2
        assert found == expected, (path, request)


def test_axios_recipe_waits_as_retry_after_says_within_its_limit(browser: Browser, service: Service) -> None:
    put = """async (url) => {
      try {
        const {status, data} = await axios.put(url, {a: 1}, {headers: {"X-Token": "a"}});
        return [status, data.detail];
      } catch (error) {
        return [error.response.status, error.response.data.detail];
      }
    }"""
    waited: list[float] = []
    opens = True

    def pause(milliseconds: float) -> None:
        waited.append(milliseconds)
        if opens:
            service.set(OPEN)

    with visited(browser, service.at("shop")) as page:
        page.add_script_tag(content=script_of("axios@1", "dist/axios.min.js"))
        page.add_script_tag(content=example("axios", "js").text)
        page.expose_function("pause", pause)
        page.evaluate("window.setTimeout = (then, milliseconds) => pause(milliseconds).then(then)")
        found = []
        for seconds, opens in ((20, True), (20, False), (600, False)):  # noqa: B007 -- `pause` reads it
            waited.clear()
            ends_at = datetime.now(UTC) + timedelta(seconds=seconds)
            service.set(MaintenanceState(switch=Switch(on=True, message="Back at ten", ends_at=ends_at)))
            found.append([*page.evaluate(put, service.at("api", "/inside/items")), len(waited)])
            assert all(1 <= each <= 20_000 for each in waited)
    assert found == [[200, '{"a":1}', 1], [503, "Back at ten", 2], [503, "Back at ten", 0]]
