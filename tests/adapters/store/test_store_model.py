"""The store beside a dictionary of lists: any order of work, and a crash at any point."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.adapters.store.conftest import Session, entry_of, start_of_run

PROMPTS = "abc"


@dataclass
class Model:
    """What must be there: for each prompt its answers in order, each with where in the log its commit ends."""

    answers: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    unused: dict[str, list[str]] = field(default_factory=dict)
    count: int = 0

    def crash(self, cut: int) -> None:
        """Only `cut` bytes of the log are left."""
        for prompt, answers in self.answers.items():
            self.answers[prompt] = [(text, end) for text, end in answers if end <= cut]

    def end(self) -> None:
        """The log was moved into the database."""
        for prompt, answers in self.answers.items():
            self.answers[prompt] = [(text, 0) for text, _ in answers]

    def begin(self) -> None:
        """A new start."""
        self.unused = {prompt: [text for text, _ in answers] for prompt, answers in self.answers.items()}

    def find(self, prompt: str) -> str | None:
        unused = self.unused.get(prompt)
        return unused.pop(0) if unused else None


class Run:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "0" / "requests.db"
        self.model = Model()
        self.stack = contextlib.ExitStack()
        self.session: Session = self.stack.enter_context(start_of_run(self.path))

    @property
    def log(self) -> Path:
        return self.path.with_name("requests.db-wal")

    def end(self) -> None:
        self.stack.close()

    def put(self, prompts: list[tuple[str, bool]]) -> None:
        entries, texts = [], []
        for prompt, is_usable in prompts:
            self.model.count += 1
            text = f"{prompt} {self.model.count} " + "x" * (self.model.count * 37 % 5000)
            entries.append(entry_of(prompt, text, is_usable=is_usable))
            texts.append((prompt, text, is_usable))
        assert self.session.put(*entries) == [True] * len(entries)
        for prompt, text, is_usable in texts:
            if is_usable:
                self.model.answers[prompt].append((text, self.log.stat().st_size))

    def find(self, prompt: str) -> None:
        assert self.session.find(prompt) == self.model.find(prompt)

    def restart(self) -> None:
        self.stack.close()
        self.model.end()
        self._begin()

    def crash(self, left: float) -> None:
        """What is on disk at this moment is all there is, and of the log only the first part."""
        copy = self.folder / str(int(self.path.parent.name) + 1)
        copy.mkdir()
        for name in ("requests.db", "requests.db-wal"):
            shutil.copyfile(self.path.with_name(name), copy / name)
        self.stack.close()
        self.path = copy / "requests.db"
        cut = int(left * self.log.stat().st_size)
        with self.log.open("r+b") as log:
            log.truncate(cut)
        self.model.crash(cut)
        self._begin()
        if left < 1:
            # What is written over a torn end begins before it, so the size of the log no longer says where it ends.
            self.restart()

    def _begin(self) -> None:
        self.stack = contextlib.ExitStack()
        self.session = self.stack.enter_context(start_of_run(self.path))
        self.model.begin()


prompts = st.sampled_from(PROMPTS)
actions = st.one_of(
    st.tuples(st.just("put"), st.lists(st.tuples(prompts, st.booleans()), min_size=1, max_size=4)),
    st.tuples(st.just("find"), prompts),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("crash"), st.one_of(st.just(1.0), st.floats(0, 1))),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(work=st.lists(actions, min_size=1, max_size=15))
def test_any_order_of_work_and_crashes_gives_each_committed_answer_once(work: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        with contextlib.ExitStack() as stack:
            stack.callback(run.end)
            for name, what in work:
                getattr(run, name)(*([] if what is None else [what]))
            run.restart()
            for prompt in PROMPTS:
                for _ in range(len(run.model.answers[prompt]) + 1):
                    run.find(prompt)
