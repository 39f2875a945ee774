"""A window for the tests of one file."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.browser import Tab


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Tab:
    """One window for all tests of a file."""
    return Tab(browser)
