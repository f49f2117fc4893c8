from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nemo_evaluator.core.report import remove_report, write_report

VOID = ("meta", "input", "line", "circle", "rect")
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</pre></details><img src=x onerror=alert(1)>",
    '"><a href="javascript:alert(1)">x</a>',
    "{{ 7 * 7 }} {% raw %} {# #}",
    "<!-- --><style>* { display: none }</style>",
    "&lt;b&gt; &amp; &#0;",
]
WriteRun = Callable[..., Path]
Make = Callable[..., dict[str, Any]]


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def elements(self) -> list[Element]:
        inner = [child for child in self.children if isinstance(child, Element)]
        return inner + [element for child in inner for element in child.elements]

    def all(self, tag: str, css_class: str = "") -> list[Element]:
        found = [element for element in self.elements if element.tag == tag]
        return [e for e in found if not css_class or css_class in e.attributes.get("class", "").split()]

    def with_id(self, name: str) -> Element:
        return next(element for element in self.elements if element.attributes.get("id") == name)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("document", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(page: Path) -> Element:
    """The page as a tree; fails when an element is not closed where it should be."""
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    reader.close()
    assert len(reader.open) == 1
    return reader.open[0]


def words(element: Element) -> str:
    """The text of the element with one blank wherever another element or line begins."""
    pieces = [child if isinstance(child, str) else words(child) for child in element.children]
    return " ".join(" ".join(pieces).split())


@pytest.fixture
def mixed(write_run: WriteRun, make_scored: Make, make_failed: Make) -> Path:
    """8 right, 4 wrong (of those 1 truncated, 1 empty and unparsed), 2 failed."""
    records = [make_scored(number) for number in range(8)]
    records += [make_scored(number, scores={"accuracy": 0.0}, extracted="A") for number in (8, 9)]
    records.append(make_scored(10, scores={"accuracy": 0.0}, extracted="C", finish_reason="length"))
    records.append(make_scored(11, scores={"accuracy": 0.0}, extracted=None, response=" "))
    records += [make_failed(12), make_failed(13)]
    return write_run(records)


def test_the_headline_has_score_error_count_and_interval(mixed: Path) -> None:
    page = read(write_report(mixed))

    assert words(page.all("h1")[0]) == "quiz"
    assert "some-model" in words(page.all("header")[0])
    headline = words(page.with_id("headline"))
    assert "accuracy 0.6667 ± 0.14 standard error n = 12" in headline
    assert "95 % interval 0.3906 to 0.8619 (Wilson)" in headline
    assert len(page.with_id("headline").all("circle")) == 1


def test_notices_name_what_is_missing_or_odd(mixed: Path) -> None:
    page = read(write_report(mixed))

    warnings = [words(notice) for notice in page.all("p", "warning")]
    assert any(text.startswith("2 of 14 samples (14.3 %) got no answer") for text in warnings)
    assert any(text.startswith("1 of 12 scored answers (8.33 %) were cut off at 64 tokens") for text in warnings)
    assert any(text.startswith("1 of 12 scored answers (8.33 %) were empty") for text in warnings)
    assert [words(notice) for notice in page.all("p", "note")] == [
        "1 of 12 scored answers (8.33 %) held nothing that could be taken for an answer; they count as wrong."
    ]
    assert not page.all("p", "alarm")


def test_coverage_shows_its_parts_in_proportion(mixed: Path) -> None:
    section = read(write_report(mixed)).with_id("coverage")

    parts = {rect.attributes["class"]: float(rect.attributes["width"].rstrip("%")) for rect in section.all("rect")}
    assert parts == {"scored": pytest.approx(85.714), "failed-part": pytest.approx(14.286)}
    assert "1 truncated 0 refused 1 empty 1 unparsed" in words(section)


def test_groups_have_a_row_each(mixed: Path) -> None:
    section = read(write_report(mixed)).with_id("groups")

    rows = [[words(cell) for cell in row.all("td")][:4] for row in section.all("tr")[1:]]
    assert rows == [["even", "0.6667", "± 0.21", "6"], ["odd", "0.6667", "± 0.21", "6"]]


def test_samples_stand_in_the_order_of_their_gravity(mixed: Path) -> None:
    samples = read(write_report(mixed)).all("details", "sample")

    assert [sample.attributes["data-kind"] for sample in samples] == [
        "failed",
        "failed",
        "wrong truncated",
        "wrong empty unparsed",
        "wrong",
        "wrong",
        *["right"] * 8,
    ]
    assert "sample-12" in words(samples[0].all("summary")[0])
    assert "http: HTTP 500: no" in words(samples[0])
    assert "extracted A target B" in words(samples[4])
    assert "The answer of 8. Answer: B" in samples[4].all("pre")[0].text


def test_the_page_is_useful_without_its_script_and_loads_nothing(mixed: Path) -> None:
    page = read(write_report(mixed))

    assert all("hidden" in controls.attributes for controls in page.all("div", "controls"))
    assert not any(name in element.attributes for element in page.elements for name in ("src", "srcset"))
    assert all(
        link.startswith("#") for element in page.elements if (link := element.attributes.get("href")) is not None
    )
    assert not any(name.startswith("on") for element in page.elements for name in element.attributes)
    assert "url(" not in words(page.all("style")[0])
    assert "@import" not in words(page.all("style")[0])


def test_the_policy_allows_this_script_and_no_other(mixed: Path) -> None:
    page = read(write_report(mixed))

    policy = next(e for e in page.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy")
    (script,) = page.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert policy.attributes["content"] == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_models_users_and_data_is_shown_and_never_obeyed(
    text: str, write_run: WriteRun, make_scored: Make, make_failed: Make
) -> None:
    harmless = read(write_report(write_run([make_scored(0), make_failed(1)])))
    folder = write_run(
        [
            make_scored(0, id=text, group=text, target=text, extracted=text, response=text, detail=text, refusal=text),
            make_failed(1, message=text),
        ],
        target={"api_endpoint": {"model_id": text, "url": text}},
        provenance={"framework": text, "command": text, text: text},
    )

    page = read(write_report(folder))

    plain = re.sub(r"\s+", " ", text)
    assert words(page.all("header")[0]).count(plain) == 2
    assert words(page.with_id("samples")).count(plain) >= 8
    assert words(page.with_id("provenance")).count(plain) >= 3
    tags = {element.tag for element in page.elements}
    assert tags <= {element.tag for element in harmless.elements} | {"tr", "th", "td"}
    assert len(page.all("script")) == 1


def test_characters_that_show_nothing_are_shown(write_run: WriteRun, make_scored: Make) -> None:
    folder = write_run([make_scored(0, response="a\r\nb\rc\x00d\u2028e\u202ef\x1b[31m\x7f")])

    answer = read(write_report(folder)).with_id("samples").all("pre")[0].text

    assert answer.strip() == "a\nb␍c␀d⟨U+2028⟩e⟨U+202E⟩f␛[31m␡"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"target": {"api_endpoint": {"model_id": "demonstration"}}}, "this is no model's score"),
        ({"provenance": {"demonstration": True}}, "this is no model's score"),
        (
            {"config": {"type": "quiz", "params": {"extra": {"dataset": "/out/demonstration.jsonl"}}}},
            "this is no benchmark's score",
        ),
    ],
)
def test_a_demonstration_says_loudly_that_it_is_none(
    changes: dict[str, Any], text: str, write_run: WriteRun, make_scored: Make
) -> None:
    page = read(write_report(write_run([make_scored(0)], **changes)))

    (alarm,) = page.all("p", "alarm")
    assert text in words(alarm)


def test_a_limited_run_says_that_it_is_not_the_whole(write_run: WriteRun, make_scored: Make) -> None:
    page = read(write_report(write_run([make_scored(0)], config={"type": "quiz", "params": {"limit_samples": 0.25}})))

    assert "No more than the first 25 % of the samples were asked" in words(page.all("p", "warning")[0])


def test_histograms_hold_every_answer(mixed: Path) -> None:
    figures = read(write_report(mixed)).with_id("distributions").all("figure")

    for figure in figures:
        assert sum(int(title.text) for title in figure.all("title")) == 12
    assert "median 100 ms" in words(figures[0])
    assert "median 10 tokens" in words(figures[1])


def test_a_harness_without_samples_gets_its_scores(tmp_path: Path) -> None:
    stats = {"value": 41.5, "stats": {"stderr": 2.0}}
    metrics = {"bleu": {"scores": {"bleu": stats}, "unused": None}}
    (tmp_path / "results.yml").write_text(
        json.dumps(
            {
                "config": {"type": "translate"},
                "results": {"tasks": {"de": {"metrics": metrics}, "fr": {"metrics": metrics}}},
            }
        )
    )

    page = read(write_report(tmp_path))

    assert "41.50 ± 2 standard error" in words(page.with_id("headline"))
    assert "37.58 to 45.42 (normal approximation)" in words(page.with_id("headline"))
    assert [words(row.all("td")[0]) for row in page.with_id("scores").all("tr")[1:]] == ["de", "fr"]
    assert not page.all("script")


def test_the_data_file_says_the_same_as_the_page(mixed: Path) -> None:
    write_report(mixed)

    data = json.loads((mixed / "report.json").read_text())

    assert data["task"] == "quiz"
    assert data["model"] == "some-model"
    assert data["headline"]["value"] == pytest.approx(8 / 12)
    assert data["coverage"]["failed"] == 2
    assert data["samples"]["by_kind"] == {"failed": 2, "notable": 2, "wrong": 2, "right": 8}
    assert data["latency_ms"]["median"] == 100
    assert data["provenance"]["image.digest"] == "sha256:0123"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "config: {type: t}",
        "config: {type: t}\nresults: {tasks: {t: {metrics: {m: {scores: {s: 1}}}}}}",
        "a: [",
    ],
)
def test_files_of_another_form_are_a_value_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.yml").write_text(content)

    with pytest.raises(ValueError, match=r"results\.yml"):
        write_report(tmp_path)

    assert not (tmp_path / "report.html").exists()


def test_a_missing_results_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path)


def test_an_earlier_report_can_be_removed(mixed: Path) -> None:
    page = write_report(mixed)

    remove_report(mixed)
    remove_report(mixed)

    assert not page.exists()
    assert not (mixed / "report.json").exists()
