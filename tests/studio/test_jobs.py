"""The queue: projects take turns, nothing is lost, and results go where they belong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from fractalgen.studio.document import Document, Result
from fractalgen.studio.jobs import MOST_OF_PROJECT, MOST_WAITING, Busy, Queue
from fractalgen.studio.project import Project
from fractalgen.studio.projects import Projects
from fractalgen.studio.request import Request
from fractalgen.studio.worker import Event, Task, Worker


class Idle:
    """A worker that does what the test says."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.stopped: list[int] = []

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def stop(self, job: int) -> None:
        self.stopped.append(job)


class Bench:
    """A queue with an idle worker, and what pages were told."""

    def __init__(self, projects: Projects) -> None:
        self.projects, self.worker = projects, Idle()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.queue = Queue(lambda project, text: self.told.append((project, json.loads(text))))
        self.queue.worker = cast(Worker, self.worker)

    def submit(self, project: Project, **wish: Any) -> tuple[int, int]:
        request = Request(state=0, mode="new", **wish)
        return self.queue.submit(project, request, Document(0), "new piece")

    def finish(self, job: int, results: int = 1, stopped: bool = False) -> dict[str, Any]:
        pieces = tuple(Result(Document(480 * (i + 1))) for i in range(results))
        self.queue.take(Event(job, "done", results=pieces, stopped=stopped))
        return next(message for _, message in reversed(self.told) if message["type"] in ("done", "error"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    projects = Projects(str(tmp_path))
    yield Bench(projects)
    projects.close()


def test_projects_take_turns(bench: Bench) -> None:
    one, two, three = (bench.projects.create(name) for name in "abc")
    numbers = [bench.submit(one) for _ in range(4)] + [bench.submit(two), bench.submit(three), bench.submit(two)]
    assert [position for _, position in numbers] == [0, 1, 2, 3, 2, 3, 5]
    for _ in numbers:
        bench.finish(bench.worker.tasks[-1].job)
    assert [task.job for task in bench.worker.tasks] == [1, 2, 5, 6, 3, 7, 4]
    assert [len(project.states) for project in (one, two, three)] == [5, 3, 2]
    waits = [message["position"] for _, message in bench.told if message["type"] == "queued" and message["job"] == 4]
    assert waits[-1] == 1
    assert waits == sorted(waits[:3]) + sorted(waits[3:], reverse=True)
    assert bench.queue.all() == []


def test_one_result_becomes_the_head_unless_the_piece_has_changed(bench: Bench) -> None:
    project = bench.projects.create("a")
    bench.submit(project)
    done = bench.finish(1)
    assert (done["states"], project.head, project.states[1].kind) == ([1], 1, "compose")
    bench.submit(project)  # from state 0, which is not the head any more
    bench.finish(2)
    assert project.head == 1
    assert project.states[2].parent == 0


def test_alternatives_share_a_group_and_leave_the_head(bench: Bench) -> None:
    project = bench.projects.create("a")
    bench.submit(project, num_samples=3)
    done = bench.finish(1, results=3)
    assert done["states"] == [1, 2, 3]
    assert project.head == 0
    assert {(project.states[i].kind, project.states[i].group) for i in (1, 2, 3)} == {("alternative", 1)}


def test_stopping(bench: Bench) -> None:
    project = bench.projects.create("a")
    for _ in range(4):
        bench.submit(project)
    bench.queue.cancel(2, keep=True)  # waits
    assert bench.told[-3][1] | {"seconds": 0} == {"type": "done", "job": 2, "states": [], "stopped": True, "seconds": 0}
    bench.queue.cancel(1, keep=True)
    assert bench.worker.stopped == [1]
    assert bench.finish(1, stopped=True)["states"] == [1]
    assert project.states[1].label == "new piece (stopped)"
    bench.queue.cancel(3, keep=False)
    assert bench.finish(3, stopped=True)["states"] == []
    bench.queue.take(Event(4, "error", json.dumps({"type": "error", "job": 4, "message": "x"})))
    assert len(project.states) == 2
    with pytest.raises(LookupError):
        bench.queue.cancel(4, keep=True)


def test_the_queue_has_an_end(bench: Bench) -> None:
    projects = [bench.projects.create(str(number)) for number in range(MOST_WAITING // MOST_OF_PROJECT + 1)]
    bench.submit(projects[0])
    for _ in range(MOST_OF_PROJECT):
        bench.submit(projects[0])
    with pytest.raises(Busy, match="jobs are waiting"):
        bench.submit(projects[0])
    for project in projects[1:-1]:
        for _ in range(MOST_OF_PROJECT):
            bench.submit(project)
    with pytest.raises(Busy, match="64 jobs are waiting"):
        bench.submit(projects[-1])


def test_a_project_that_goes_away_takes_its_jobs_with_it(bench: Bench) -> None:
    one, two = bench.projects.create("a"), bench.projects.create("b")
    for project in (one, one, two):
        bench.submit(project)
    bench.queue.drop(one.id)
    bench.projects.delete(one.id)
    assert bench.worker.stopped == [1]
    bench.finish(1, stopped=True)
    assert bench.worker.tasks[-1].job == 3
    assert not (bench.projects.folder / one.id).exists()
