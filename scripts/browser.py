"""Airflow's pages in a headless Chromium: what a user would do with them, and pictures of them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 120  # seconds for one page, on a busy machine
# As root Chromium has no sandbox; without the others it looks for its maker's servers at every start.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
)


def missing_programs() -> list[str]:
    """What would have to be installed first."""
    return [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]


class Pages:
    """Airflow's pages, as one logged-in user sees them.

    :param url: Airflow's address.
    """

    def __init__(self, driver: WebDriver, url: str) -> None:
        self.driver = driver
        self.url = url

    def log_in(self, user: str, password: str) -> None:
        """Open the address, and fill in the form to which it leads."""
        self.driver.get(self.url)
        self.element("input[name=username]").send_keys(user)
        self.element("input[name=password]").send_keys(password)
        self.element("button[type=submit]").click()
        self.until_text("Active Dags", "Dags")

    def dags(self, *dag_ids: str) -> None:
        """Open the list of DAGs, and find these on it."""
        self.driver.get(f"{self.url}/dags")
        self.until_text(*dag_ids)

    def graph(self, path: str, *task_ids: str) -> None:
        """Open a DAG's or a run's page, show its graph over the whole page, and find these tasks in it.

        :param path: such as ``dags/my_dag``.
        """
        self.driver.get(f"{self.url}/{path}")
        self.element("button[aria-label^='Show Graph']").click()
        for task_id in task_ids:
            self.element(f".react-flow__node[data-id='{task_id}']")
        self.settle()
        for button in self.driver.find_elements(
            By.CSS_SELECTOR, "button[aria-label='Collapse Details Panel']"
        ):
            button.click()
            self.settle()
        self.element("button.react-flow__controls-fitview").click()

    def grid(self, path: str, *task_ids: str) -> None:
        """Open a DAG's page with its runs and tasks as a grid."""
        self.driver.get(f"{self.url}/{path}")
        self.element("button[aria-label^='Show Grid']").click()
        self.until_text(*task_ids)

    def element(self, selector: str) -> WebElement:
        """The first element that a CSS selector finds, as soon as there is one."""
        return WebDriverWait(self.driver, PATIENCE).until(
            lambda driver: next(iter(driver.find_elements(By.CSS_SELECTOR, selector)), None),
            f"{selector} is not on {self.driver.current_url}",
        )

    def until_text(self, *texts: str) -> None:
        """Wait until the page says all of these."""

        def are_there(driver: WebDriver) -> bool:
            try:
                page = driver.find_element(By.TAG_NAME, "body").text
            except StaleElementReferenceException:
                return False
            return all(text in page for text in texts)

        WebDriverWait(self.driver, PATIENCE).until(
            are_there, f"{self.driver.current_url} does not say {texts}"
        )

    def settle(self) -> None:
        """Wait until nothing is loading, and nothing moves any more."""
        wait = WebDriverWait(self.driver, PATIENCE, poll_frequency=1)
        wait.until(
            lambda driver: not driver.find_elements(By.CSS_SELECTOR, ".chakra-skeleton, .chakra-spinner")
        )
        pictures = [b""]

        def stands_still(driver: WebDriver) -> bool:
            pictures.append(driver.get_screenshot_as_png())
            return pictures[-1] == pictures[-2]

        wait.until(stands_still)

    def picture(self, file: Path) -> None:
        """Save what the window shows."""
        self.settle()
        self.driver.save_screenshot(str(file))


@contextlib.contextmanager
def pages(url: str, *, width: int = 1400, height: int = 900) -> Iterator[Pages]:
    """A Chromium with a profile of its own, ended with the block.

    :param width: of the page, in pixels.
    """
    with tempfile.TemporaryDirectory(prefix="snowml-chromium-") as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for option in (*OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(option)
        service = webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
        driver = webdriver.Chrome(options=options, service=service)
        try:
            # A window is higher than its page, in headless mode too.
            chrome = driver.execute_script("return window.outerHeight - window.innerHeight")
            driver.set_window_size(width, height + chrome)
            yield Pages(driver, url)
        finally:
            driver.quit()
