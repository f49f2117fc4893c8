"""All tasks, for programs of the compatible interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_evaluator.api.api_dataclasses import Evaluation
from nemo_evaluator.core.definitions import Catalogue, Framework, Task, discover, merge_definitions

_OneOrMore = Evaluation | list[Evaluation]


def get_available_evaluations(
    catalogue: Catalogue | None = None,
) -> tuple[dict[str, dict[str, Evaluation]], dict[str, Mapping[str, Any]], dict[str, _OneOrMore]]:
    """All tasks, for programs of the compatible interface.

    Returns:
        framework to task to evaluation; framework to its defaults; task to its evaluation, or to a list of them where
        several frameworks have the task.
    """
    catalogue = catalogue or discover()
    by_framework = {
        framework.name: {name: _defaults(framework, task) for name, task in framework.tasks.items()}
        for framework in catalogue.frameworks.values()
    }
    by_task: dict[str, list[Evaluation]] = {}
    for tasks in by_framework.values():
        for name, evaluation in tasks.items():
            by_task.setdefault(name, []).append(evaluation)
    return (
        by_framework,
        {framework.name: framework.defaults for framework in catalogue.frameworks.values()},
        {name: found[0] if len(found) == 1 else found for name, found in by_task.items()},
    )


def _defaults(framework: Framework, task: Task) -> Evaluation:
    merged = merge_definitions({"config": {}, "target": {}}, framework.merged_defaults(task))
    return Evaluation.model_validate({**merged, "framework_name": framework.name, "pkg_name": framework.pkg_name})
