"""A whole run in the image, with the gated dataset of a fake hub."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.images.conftest import BuiltImage, engine, image_of

from nemo_evaluator.core.definitions import read_definition
from nemo_evaluator.testing import FakeEndpoint, FakeHub, ModelRequest

__all__ = ["engine", "image_of"]
pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("images")]

(DATA,) = read_definition(Path(__file__).parents[1] / "framework.yml").harness["data"]
QUESTIONS = 20
RIGHT = 13


def dataset() -> dict[str, str]:
    """The file of the smallest task, with made-up questions."""
    text = io.StringIO()
    columns = ["Record ID", "Question", "Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3))]
    writer = csv.DictWriter(text, [*columns, "High-level domain"])
    writer.writeheader()
    for number in range(QUESTIONS):
        cells = [f"rec{number}", f"Which is number {number}?", "right", "wrong 1", "wrong 2", "wrong 3"]
        writer.writerow(dict(zip([*columns, "High-level domain"], [*cells, "Physics"], strict=True)))
    return {"gpqa_diamond.csv": text.getvalue()}


def answer(request: ModelRequest) -> str:
    """The right choice for the first questions, a wrong one for the others."""
    question = re.search(r"Which is number (\d+)\?", request.prompt)
    if question is None:
        return "ready"
    known = int(question[1]) < RIGHT
    choice = re.search(r"^([A-D])\) right$" if known else r"^([A-D])\) wrong 1$", request.prompt, re.MULTILINE)
    return f"Answer: {choice[1] if choice else None}"


def test_score_is_that_of_the_answers(image_of: Callable[[str], BuiltImage], tmp_path: Path) -> None:
    with FakeHub() as hub, FakeEndpoint(answer) as endpoint:
        hub.add_dataset(DATA["id"], dataset(), revision=DATA["revision"], gated=True, token="hf_made_up")
        results = image_of("gpqa").evaluate(
            tmp_path,
            endpoint.chat_url,
            task="gpqa_diamond",
            variables={"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_made_up"},
        )
    score = results["results"]["tasks"]["gpqa_diamond"]["metrics"]["accuracy"]["scores"]["accuracy"]
    assert score["value"] == RIGHT / QUESTIONS
    assert b"hf_made_up" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
