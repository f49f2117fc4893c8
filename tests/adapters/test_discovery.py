from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from textwrap import dedent

import pytest

from nemo_evaluator.adapters.chain import resolve_chain
from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.discovery import discover_interceptors
from nemo_evaluator.adapters.registry import build
from nemo_evaluator.adapters.third_party import ThirdParty
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.api.adapter_config import AdapterConfig, DiscoveryConfig, InterceptorConfig
from nemo_evaluator.errors import MisconfigurationError

Write = Callable[..., Path]

SHOUT = """
from pydantic import BaseModel
from nemo_evaluator.adapters import register_for_adapter

@register_for_adapter(name="shout", description="Shouts.")
class Shout:
    class Params(BaseModel):
        mark: str = "!"

    def __init__(self, params):
        self.mark = params.mark

    async def __call__(self, request, call_next):
        return await call_next(request)
"""
FUNCTION = """
from nemo_evaluator.adapters import register_for_adapter

@register_for_adapter(name="plain", stage="transport")
async def plain(request, call_next):
    return await call_next(request)
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file into a folder of interceptors; gives the folder."""
    folder = tmp_path / "interceptors"
    folder.mkdir()

    def one(text: str, name: str = "mine.py") -> Path:
        (folder / name).write_text(dedent(text))
        return folder

    return one


def found(*names: str, dirs: Iterable[Path] = (), modules: Iterable[str] = ()) -> dict[str, ThirdParty]:
    discovery = DiscoveryConfig(dirs=[str(entry) for entry in dirs], modules=list(modules))
    known = discover_interceptors(discovery, names).kinds
    return {name: kind for name, kind in known.items() if isinstance(kind, ThirdParty)}


def refused(message: str, *names: str, dirs: Iterable[Path] = (), modules: Iterable[str] = ()) -> None:
    with pytest.raises(MisconfigurationError, match=f"(?s){message}") as caught:
        found(*names, dirs=dirs, modules=modules)
    assert "Traceback" not in str(caught.value)


def test_a_folder_s_files_that_register_something_are_loaded(write: Write) -> None:
    write(SHOUT)
    write(FUNCTION, "other.py")
    folder = write("raise RuntimeError('not for us')", "unrelated.py")

    kinds = found(dirs=[folder])

    assert list(kinds) == ["shout", "plain"]
    assert (kinds["shout"].stage, kinds["plain"].stage) == ("harness", "transport")
    assert kinds["shout"].description == "Shouts."
    file = folder / "mine.py"
    assert kinds["shout"].as_data() == {
        "name": "shout",
        "module": None,
        "file": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def test_loading_a_folder_leaves_no_trace(write: Write) -> None:
    before = list(sys.path)
    folder = write(SHOUT)

    found(dirs=[folder])

    assert sys.path == before
    assert [file.name for file in folder.iterdir()] == ["mine.py"]
    assert "mine" not in sys.modules


def test_a_file_may_import_the_one_beside_it(write: Write) -> None:
    write("MARK = '?'", "helper.py")
    folder = write("from .helper import MARK\n" + dedent(SHOUT).replace('"!"', "MARK"))

    parameters = found(dirs=[folder])["shout"].parameters

    assert parameters.model_validate({}).model_dump() == {"mark": "?"}


def test_a_changed_file_is_loaded_anew(write: Write) -> None:
    folder = write(SHOUT)
    assert "shout" in found(dirs=[folder])
    write(SHOUT.replace('name="shout"', 'name="whisper"'))

    assert list(found(dirs=[folder])) == ["whisper"]


def test_two_runs_in_one_process_have_each_their_own(tmp_path: Path) -> None:
    folders = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "mine.py").write_text(SHOUT.replace('"!"', f'"{number}"'))
        folders.append(folder)
    marks: dict[int, object] = {}

    def look(number: int) -> None:
        marks[number] = found(dirs=[folders[number]])["shout"].parameters.model_validate({}).model_dump()["mark"]

    threads = [threading.Thread(target=look, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert marks == {0: "0", 1: "1"}


def test_a_module_and_what_its_package_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("from . import inner\n")
    (package / "inner.py").write_text(SHOUT)
    monkeypatch.syspath_prepend(tmp_path)

    kind = found(modules=["their_package"])["shout"]

    assert kind.as_data()["module"] == "their_package.inner"
    assert kind.as_data()["file"] == str(package / "inner.py")
    # Loaded before, and asked for again by another run.
    assert list(found(modules=["their_package.inner", "their_package"])) == ["shout"]


def installed(folder: Path, entry_points: str, **modules: str) -> None:
    """Put a distribution into `folder`, as an installer would."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(dedent(text))
    metadata = folder / "their_dist-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-dist\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[nemo_evaluator.interceptors]\n{entry_points}\n")


def test_an_entry_point_is_loaded_when_its_name_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, "shout = ep_shout:Shout\nall = ep_plain", ep_shout=SHOUT, ep_plain=FUNCTION)
    monkeypatch.syspath_prepend(tmp_path)

    assert found("caching", "reasoning") == {}
    assert "ep_shout" not in sys.modules
    assert set(found("shout")) == {"shout", "plain"}
    assert [entry.name for entry in resolve_chain(AdapterConfig(interceptors=["plain"]), output_dir="o")] == [  # type: ignore[list-item]  # the short form
        "plain",
        "endpoint",
    ]


def test_a_broken_entry_point_disturbs_only_those_who_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(
        tmp_path, "shout2 = ep_good:Shout\nbad = ep_bad:Bad", ep_good=SHOUT.replace("shout", "shout2"), ep_bad="1 / 0"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert "shout2" in found("shout2")
    refused(r"the entry point bad = ep_bad:Bad .* cannot be loaded: ZeroDivisionError: division by zero", "bad")


def test_an_unknown_name_lists_third_parties_too(write: Write) -> None:
    config = AdapterConfig.model_validate({"interceptors": ["shuot"], "discovery": {"dirs": [str(write(SHOUT))]}})

    with pytest.raises(MisconfigurationError, match=r"there is no 'shuot'. Did you mean 'shout'\? Known: .*shout"):
        resolve_chain(config, output_dir="o")


def test_parameters_are_checked_like_those_of_built_in_ones(write: Write) -> None:
    discovery = {"dirs": [str(write(SHOUT))]}
    wrong = {"interceptors": [{"name": "shout", "config": {"marc": "x"}}], "discovery": discovery}
    with pytest.raises(MisconfigurationError, match=r"'shout' has no parameter 'marc'. Did you mean 'mark'"):
        resolve_chain(AdapterConfig.model_validate(wrong), output_dir="o")
    wrong = {"interceptors": [{"name": "shout", "config": {"mark": 5}}], "discovery": discovery}
    with pytest.raises(MisconfigurationError, match="'shout': parameter 'mark': Input should be a valid string"):
        resolve_chain(AdapterConfig.model_validate(wrong), output_dir="o")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import not_there_at_all\nregister_for_adapter",
            r"mine\.py cannot be loaded: No module named 'not_there_at_all'",
        ),
        ("register_for_adapter(", r"mine\.py cannot be loaded: SyntaxError: .*line 1"),
        ("register_for_adapter = exit(3)", r"mine\.py cannot be loaded: SystemExit: 3"),
        ("register_for_adapter = 5", "no file in .* registers an interceptor: decorate one with register_for_adapter"),
        ("print()", "no file in .* registers an interceptor"),
        (SHOUT.replace("shout", "caching"), "registers an interceptor 'caching', but that is the name of the built-in"),
        (SHOUT.replace("shout", "endpoint"), "the name of the built-in one; give it another name"),
        (
            SHOUT + SHOUT.replace("class Shout", "class Second"),
            "registers an interceptor 'shout', but that is the name",
        ),
        (SHOUT.replace('"shout"', '"sh out"'), "must be text without white space, not 'sh out'"),
        (FUNCTION.replace("transport", "network"), "must be one of harness, store, transport, not 'network'"),
        (
            FUNCTION.replace("async def", "def").replace("await ", ""),
            r"'plain': it must be a coroutine function: `async def …\(request, call",
        ),
        (FUNCTION.replace("request, call_next)", "request)", 1), r"'plain': it must be .*, not \(request\)"),
        (SHOUT.replace("async def", "def").replace("await ", ""), "'shout': its __call__ must be a coroutine function"),
        (SHOUT.replace("self, request, call_next", "self, request"), r"its __call__ must be .* not \(self, request\)"),
        (
            SHOUT.replace("def __init__(self, params)", "def __init__(self, a, b, c)"),
            r"its __init__ must take \(self, p",
        ),
        (SHOUT.replace("class Params(BaseModel)", "class Params"), "its Params must be a pydantic model"),
        (SHOUT.replace("__call__", "answer"), r"has no method `async def __call__\(self, request, call_next\)`$"),
        (
            SHOUT.replace("async def __call__", "def intercept_request").replace("await ", ""),
            r"written for the older interface: write `async def __call__",
        ),
        (
            "from nemo_evaluator.adapters.decorators import register_for_adapter",
            r"No module named 'nemo_evaluator.adapters.decorators'. It is written for the older interface",
        ),
        (
            "from nemo_evaluator.adapters.types import RequestInterceptor\nregister_for_adapter",
            "It is written for the older interface",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_sentence(write: Write, text: str, message: str) -> None:
    refused(message, dirs=[write(text)])


def test_what_is_wrong_with_a_place_is_said(tmp_path: Path) -> None:
    refused("discovery.dirs: there is no folder .*nowhere", dirs=[tmp_path / "nowhere"])
    refused(
        "discovery.modules: not_there_x.inner: there is no such module; .*PYTHONPATH", modules=["not_there_x.inner"]
    )
    refused("discovery.modules: json registers no interceptor", modules=["json"])


def test_two_places_with_one_name_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(SHOUT)

    refused(r"/b/mine\.py registers an interceptor 'shout', but that is the name of .*/a/mine\.py", dirs=[
        tmp_path / "a", tmp_path / "b",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("constructor", "expected"),
    [
        ("def __init__(self, params): self.seen = params.mark", "!"),
        ("def __init__(self, params, context): self.seen = (params.mark, context.name)", ("!", "model")),
        ("def __init__(self): self.seen = 'nothing'", "nothing"),
    ],
)
def test_a_constructor_gets_what_it_takes(write: Write, constructor: str, expected: object) -> None:
    text = re.sub(r"def __init__\(self, params\):\n        self\.mark = params\.mark", constructor, SHOUT)
    kinds = found(dirs=[write(text)])

    links = build([InterceptorConfig(name="shout")], Context(upstream=Upstream("http://x/v1")), known=kinds)

    assert links["harness"][0].interceptor.seen == expected  # type: ignore[attr-defined]  # of the class above


def test_a_constructor_that_fails_is_named(write: Write) -> None:
    kinds = found(dirs=[write(SHOUT.replace("self.mark = params.mark", "raise KeyError('mark')"))])

    with pytest.raises(MisconfigurationError, match="'shout' cannot be made: KeyError: 'mark'"):
        build([InterceptorConfig(name="shout")], Context(upstream=Upstream("http://x/v1")), known=kinds)


def test_the_names_of_the_contract_load_when_they_are_used() -> None:
    code = (
        "import sys; import nemo_evaluator.adapters as a; before = 'pydantic' in sys.modules;"
        "from nemo_evaluator.adapters import CallNext, Context, Request, Response, register_for_adapter;"
        "print(before, Request.__name__, Response.__name__, sorted(set(a.__all__) - set(dir(a))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "Request", "Response", "[]"]
