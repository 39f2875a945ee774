"""A robot that composes and edits at random, and many pages at once."""

from __future__ import annotations

import pytest

from tests.studio.e2e.conftest import Opener
from tests.studio.e2e.driver import BAR, song
from tests.studio.e2e.robot import Robot
from tests.studio.server import Server


def test_ten_things_at_random(open_studio: Opener) -> None:
    robot = Robot(open_studio(), 0)
    for _ in range(10):
        robot.step()
    robot.back()


@pytest.mark.slow
def test_twenty_want_to_compose_at_once(open_studio: Opener, server: Server) -> None:
    """Three with a page, seventeen with scripts."""
    tabs = [open_studio(song(4)) for _ in range(3)]
    projects = [server.project() for _ in range(17)]
    for project in (*projects, *projects[:5]):  # the second ones have to wait for the others
        server.post(f"projects/{project}/compose", state=0, mode="new", flags={"bars": 1})
    for tab in tabs:
        tab.page.bring_to_front()
        tab.page.locator("#mode-continue").click()
        tab.page.locator("#compose").click()
        tab.until("studio.job")
    tabs[2].page.get_by_text("in the queue").wait_for()
    for tab in tabs:
        tab.rest()
        assert tab.document()["length"] == 8 * BAR
    left = [job["project"] for job in server.get("jobs")]
    assert sorted(left) == sorted(set(left))  # nobody's second job came before another's first
    while server.get("jobs"):
        tabs[0].page.wait_for_timeout(50)
    states = [len(server.get(f"projects/{project}")["states"]) for project in projects]
    assert states == [3] * 5 + [2] * 12
