"""The crash matrix: every operator is killed at every request that Snowflake sees of it, and tried again.

A crash point is the n-th request. The server holds it, the process is killed with SIGKILL, and the request is
dropped (the crash came before it) or carried out (after it). Then Airflow's next process does its work, and
what is there must be so as if nothing had happened.

    python tests/chaos/matrix.py                    # everything
    python tests/chaos/matrix.py batch load         # some
    python tests/chaos/matrix.py --mutations        # with the engine's protections taken out, one at a time
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

if __name__ == "__main__":  # Airflow reads these when it is imported
    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="snowml-chaos-"))
    os.environ |= {"AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}

import world
from lives import MANY, Control, Crash, Life, Processes
from mutations import MUTATIONS
from subject import Subject
from subjects import SUBJECTS
from world import SCHEMA, SLOTS

from airflow_provider_snowml.local import LocalSnowflake

# What the requests start with at which a crash matters most.
TELLING = (
    *("EXECUTE INFERENCE JOB SERVICE", "DELETE", "INSERT", "COMMIT"),
    *("CREATE MODEL", "ALTER MODEL", "DROP MODEL", "CREATE SCHEMA", "DROP SCHEMA"),
)


SOME = 16  # cases of a subject that are a sample
MUTATED = 12  # how many cases of a subject show a protection that is gone, if not all


@dataclass(eq=False)
class Case:
    """One life with one crash in it.

    :param subject: a key of ``SUBJECTS``.
    :param crash: where it dies; None for a life without.
    :param request: what was asked at that point in a life without a crash.
    """

    subject: str
    crash: Crash | None = None
    request: str = ""
    name: str = ""
    crashed: bool = False
    violations: list[str] = field(default_factory=list)
    requests: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_telling(self) -> bool:
        """Whether a crash there matters most."""
        return self.crash is not None and self.request.startswith(TELLING)

    def __str__(self) -> str:
        if self.crash is None:
            return f"{self.subject}, without a crash"
        where = f"request {self.crash.request} of {self.crash.phase} ({' '.join(self.request.split())[:90]})"
        return f"{self.subject}, {'hangs' if self.crash.hangs else 'dies'} at {where}, {self.crash.how}"


class Matrix:
    """A local Snowflake with faults, a prepared process, and the cases that are run with them."""

    def __init__(self, control: Control, processes: Processes, directory: Path) -> None:
        self.control, self._processes, self._directory = control, processes, directory
        self._numbers = itertools.count(1)
        self._clean: dict[tuple[str, str | None], Case] = {}
        self._slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(SLOTS):
            self._slots.put(slot)

    def run(self, case: Case, mutation: str | None = None) -> Case:
        """Live a case, and note what is not as it must be."""
        slot = self._slots.get()
        try:
            case.name = f"K{next(self._numbers):04d}"  # K is in no hash of another job
            subject = SUBJECTS[case.subject](case.name, self.control, slot, self._directory / case.name)
            self._live(case, subject, mutation)
            self.control.forget_faults_of(case.name)
        finally:
            self._slots.put(slot)
        return case

    def run_all(self, cases: Iterable[Case], mutation: str | None = None) -> Iterator[Case]:
        """Live several, a few at once."""
        with ThreadPoolExecutor(SLOTS) as threads:
            yield from threads.map(lambda case: self.run(case, mutation), cases)

    def live_without_crash(self, subjects: Iterable[str], mutation: str | None = None) -> None:
        """Note what they ask, for ``points``."""
        of = {SUBJECTS[subject].points_of or subject for subject in subjects if not SUBJECTS[subject].bad_day}
        for case in self.run_all(
            [Case(name) for name in of if (name, mutation) not in self._clean], mutation
        ):
            self._clean[case.subject, mutation] = case
            if case.violations and not mutation:
                raise AssertionError(f"{case}: {case.violations}")

    def points(self, subject: str, mutation: str | None = None) -> list[Case]:
        """A case for each request of a life without a crash, and each of the two ways."""
        if SUBJECTS[subject].bad_day:
            return [Case(subject)]
        self.live_without_crash([subject], mutation)
        clean = self._clean[SUBJECTS[subject].points_of or subject, mutation]
        return [
            Case(subject, Crash(phase, number, how, SUBJECTS[subject].hangs), request)
            for phase, requests in clean.requests.items()
            for number, request in enumerate(requests, 1)
            if not re.search(SUBJECTS[subject].spared, request)
            for how in ("drop", "carry_out")
        ]

    def _live(self, case: Case, subject: Subject, mutation: str | None) -> None:
        subject.before()
        life = Life(
            name=case.name,
            operator=subject.operator,
            arguments=subject.arguments(),
            processes=self._processes,
            control=self.control,
            connection=self.control.connection_of(case.name),
            directory=self._directory / case.name,
            crash=case.crash,
            cleared=subject.cleared,
            after_crash=subject.after_crash,
            killed=subject.killed,
            after_kill=subject.after_kill,
            let_go=subject.let_go,
            retries=subject.retries,
            watched=subject.watched,
            watch=subject.watch,
            mutation=mutation,
        )
        end = life.run()
        case.requests, case.crashed = life.requests, life.crashed
        if subject.failure and end.get("error") == subject.failure:
            case.violations = subject.violations_of_failure()
        elif "error" in end:
            case.violations = [f"the task failed: {end['error']}: {end['text'][:1000]}"]
        elif subject.failure:
            case.violations = [f"the task did not fail with {subject.failure}: {end['xcom']}"]
        else:
            case.violations = subject.violations(end["xcom"])


@contextlib.contextmanager
def controlled(directory: Path) -> Iterator[Control]:
    """A local Snowflake with what the subjects need, for a ``with`` block."""
    from airflow_provider_snowml.hooks.snowml import SnowMLHook

    directory.mkdir(parents=True, exist_ok=True)
    with LocalSnowflake(directory / "snowflake", faults=True) as snowflake:
        os.environ["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"] = snowflake.airflow_connection_uri
        SnowMLHook().rows(f"CREATE SCHEMA {SCHEMA}")
        with (directory / "prepare.log").open("w") as log, contextlib.redirect_stderr(log):
            world.prepare(SnowMLHook(schema=SCHEMA.split(".")[1]))
        with contextlib.closing(Control(snowflake, SCHEMA.split(".")[1])) as control:
            yield control


@contextlib.contextmanager
def matrix(control: Control, directory: Path) -> Iterator[Matrix]:
    """A matrix with its prepared process, for a ``with`` block."""
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Processes(directory)) as processes:
        yield Matrix(control, processes, directory / "lives")


def sample(cases: Sequence[Case], most: int) -> list[Case]:
    """Some of a subject's cases: where it matters most, the rest spread over the whole range.

    :param most: how many.
    """
    telling = [case for case in cases if case.is_telling]
    chosen = _spread(telling, (most + 1) // 2)
    others = [case for case in cases if case not in telling]
    # One way at each point, by turns.
    others = [case for n, case in enumerate(others) if n % 4 in (0, 3)] or others
    chosen += _spread(others, most - len(chosen))
    return [case for case in cases if case in chosen]


def _spread(cases: Sequence[Case], most: int) -> list[Case]:
    """At even distances."""
    if len(cases) <= most:
        return list(cases)
    return [cases[int((n + 0.5) * len(cases) / most)] for n in range(most)]


def report(title: str, cases: Sequence[Case], *, verbose: int = MANY) -> int:
    """Print a line, and the first violations; how many cases have one."""
    bad = [case for case in cases if case.violations]
    points = len({(case.crash.phase, case.crash.request) for case in cases if case.crash})
    crashed = sum(case.crashed for case in cases)
    print(f"{title:42} {points:8} {len(cases):8} {crashed:8} {len(bad):10}", flush=True)
    for case in bad[:verbose]:
        print(f"    {case.name}: {case}: {'; '.join(case.violations)}", flush=True)
    return len(bad)


def mutate(it: Matrix, names: Sequence[str], *, whole: bool) -> bool:
    """Take protections out, one at a time; whether the matrix notices each.

    :param whole: every crash point, not only as many as it takes.
    """
    noticed = []
    for name in names:
        cases: list[Case] = []
        for subject in MUTATIONS[name].subjects:
            points = it.points(subject, name)
            cases += (
                points if whole else sorted(sample(points, MUTATED), key=lambda case: not case.is_telling)
            )
        lived: list[Case] = []
        for n in range(0, len(cases), SLOTS):
            lived += it.run_all(cases[n : n + SLOTS], name)
            if not whole and any(case.violations for case in lived):
                break
        noticed.append(report(f"{name} ({', '.join(MUTATIONS[name].subjects)})", lived, verbose=1) > 0)
    return all(noticed)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subjects", nargs="*", choices=[[], *SUBJECTS], help="all if left out")
    parser.add_argument(
        "--sample", nargs="?", type=int, const=SOME, metavar="N", help=f"a few crash points of each; {SOME}"
    )
    parser.add_argument(
        "--mutations", nargs="*", help="take these protections out, one at a time; all if none is named"
    )
    parser.add_argument("--directory", type=Path, help="where it keeps what it makes")
    told = parser.parse_args(arguments)
    names = told.subjects or list(SUBJECTS)
    with contextlib.ExitStack() as stack:
        directory = told.directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        control = stack.enter_context(controlled(directory))
        it = stack.enter_context(matrix(control, directory))
        begin = time.monotonic()
        print(f"{'':42} {'requests':>8} {'cases':>8} {'crashes':>8} {'violations':>10}", flush=True)
        bad = total = 0
        if told.mutations is not None:
            return 0 if mutate(it, told.mutations or list(MUTATIONS), whole=not told.sample) else 1
        for name in names:
            try:
                points = it.points(name)
            except AssertionError as error:
                print(f"{name}: {error}", flush=True)
                bad += 1
                continue
            cases = list(it.run_all(sample(points, told.sample) if told.sample else points))
            bad += report(name, cases)
            total += len(cases)
        print(f"{total} cases, {bad} violations, {time.monotonic() - begin:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
