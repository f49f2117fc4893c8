"""Renders command templates: Jinja for the logic, and the shell's own rules for every value.

A template decides *what* stands in the command; a value can never change it. Each printed expression leaves a
placeholder, and `core.quoting` fills the placeholders in by where they stand in the script: a bare word, single or
double quotes, a here-document, a variable's name. Values are data: they are not rendered again.

Text is printed as it stands only where the template's author wrote it: literals such as `{{ '--chat' if x else '' }}`.
An expression that holds several arguments is a *fragment*: `{{ x | fragment }}`, and by convention of the
published harnesses `config.params.extra.args`. It is split into words, and each word is quoted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nemo_evaluator.api.api_dataclasses import Evaluation
from nemo_evaluator.core.quoting import Kind, Values, fill
from nemo_evaluator.errors import DefinitionError, MisconfigurationError

_FRAGMENT_BY_CONVENTION = "config.params.extra.args"
_FRAGMENT_FILTER = "fragment"
_PROTECT: Mapping[Kind, str] = {kind: f"_protect_{kind}" for kind in ("value", "fragment", "json")}


def render_command(
    evaluation: Evaluation,
    *,
    template: str | None = None,
    url: str | None = None,
    replaced: Mapping[tuple[str, ...], str] | None = None,
) -> str:
    """The shell script that `evaluation.command` (or another `template` of its definition) stands for.

    Args:
        evaluation: the resolved evaluation; its fields are what the template sees.
        template: rendered instead of `evaluation.command`.
        url: stands for `target.api_endpoint.url`, when the harness is to use a proxy.
        replaced: what stands for further values, by their keys: the URLs of judges.

    Raises:
        MisconfigurationError: a value that the template needs is missing or cannot stand where it is put.
        DefinitionError: the template itself is wrong.
    """
    context = evaluation.model_dump(mode="json")
    endpoint = context["target"]["api_endpoint"]
    if endpoint is not None:
        endpoint["api_key"] = endpoint["api_key_name"]
        if url is not None:
            endpoint["url"] = url
    for keys, value in (replaced or {}).items():
        section = context
        for key in keys[:-1]:
            section = section[key]
        section[keys[-1]] = value
    return render(template or evaluation.command, context, source=f"the command of {evaluation.framework_name}")


def render(template: str, context: Mapping[str, Any], *, source: str) -> str:
    """`template` with the values of `context`, as a shell script; `source` names it in errors."""
    values = Values()
    environment = _Environment(values)
    try:
        text = environment.from_string(template).render(context)
    except jinja2.UndefinedError as error:
        raise MisconfigurationError(f"Missing required configuration field: {error.message} (in {source})") from error
    except jinja2.TemplateSyntaxError as error:
        raise DefinitionError(f"{source}, line {error.lineno} of the template: {error.message}") from error
    except jinja2.TemplateError as error:
        raise DefinitionError(f"{source}: {error}") from error
    except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise DefinitionError(f"{source}: an expression failed: {error}") from error
    script = fill(text, values, source=source).lstrip()
    trimmed = script.rstrip()
    # A backslash at the end continues the line over the white space; without that it would be an argument.
    return script if trimmed.endswith("\\") else trimmed


def parse(template: str) -> nodes.Template:
    """The syntax tree of `template`, for those who check it.

    Raises:
        jinja2.TemplateSyntaxError: it is not a template.
    """
    return _Environment(Values()).parse(template)


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox that replaces printed expressions by placeholders."""

    def __init__(self, values: Values) -> None:
        # Each template is rendered once: folding its constants first would cost more than it saves.
        super().__init__(undefined=jinja2.StrictUndefined, optimized=False)
        self.filters[_FRAGMENT_FILTER] = lambda value: value
        # Published templates ask for a parameter in either way; null, which resets one, has to answer both.
        self.tests["defined"] = _is_given
        self.tests["undefined"] = lambda value: not _is_given(value)
        for kind, name in _PROTECT.items():
            self.filters[name] = _protector(values, kind)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for output in tree.find_all(nodes.Output):
            output.nodes = [_protected(node) for node in output.nodes]
        return tree


def _is_given(value: Any) -> bool:
    return value is not None and not isinstance(value, jinja2.Undefined)


def _protector(values: Values, kind: Kind) -> Callable[[Any], str]:
    def protect(value: Any) -> str:
        if isinstance(value, jinja2.Undefined):
            return str(value)  # raises: the message names what is missing
        if kind != "value":
            return values.placeholder(str(value), kind)
        if isinstance(value, list | tuple | dict):
            return values.placeholder(str(value), "json")
        return values.placeholder(str(value), "text" if isinstance(value, str) else "value")

    return protect


def _protected(node: nodes.Expr) -> nodes.Expr:
    """`node` such that every part of it that is not written in the template becomes a placeholder."""
    if isinstance(node, nodes.TemplateData | nodes.Const):
        return node
    if isinstance(node, nodes.CondExpr):
        otherwise = _protected(node.expr2) if node.expr2 is not None else None
        return nodes.CondExpr(node.test, _protected(node.expr1), otherwise, lineno=node.lineno)
    if isinstance(node, nodes.Concat):
        return nodes.Concat([_protected(part) for part in node.nodes], lineno=node.lineno)
    return nodes.Filter(node, _PROTECT[_kind(node)], [], [], None, None, lineno=node.lineno)


def _kind(node: nodes.Expr) -> Kind:
    if isinstance(node, nodes.Filter):
        if node.name == "tojson":
            return "json"
        if node.name == _FRAGMENT_FILTER or (node.name in ("default", "d") and node.node and _is_args(node.node)):
            return "fragment"
    return "fragment" if _is_args(node) else "value"


def _is_args(node: nodes.Node) -> bool:
    return dotted(node) == _FRAGMENT_BY_CONVENTION


def dotted(node: nodes.Node) -> str | None:
    """`a.b.c` when `node` reads exactly that, whether written with dots or brackets; else None."""
    if isinstance(node, nodes.Name):
        return str(node.name)
    if isinstance(node, nodes.Getattr):
        base, key = dotted(node.node), node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        base, key = dotted(node.node), node.arg.value
    else:
        return None
    return f"{base}.{key}" if base else None
