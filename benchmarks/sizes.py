"""Sizes of functions and modules, beside those of the projects that STYLE measured: `python -m benchmarks.sizes`."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np

from benchmarks.report import Result, arguments, report

ROOT = Path(__file__).parents[1]
HOUSE = ("flotilla", "actors", "models", "channels", "serve", "benchmarks")
# Medians and percentiles over seven admired projects; a longer function is a question to answer in review.
FUNCTION_LINES = {50: 10.0, 90: 30.0, 99: 85.0}
MODULE_LINES_MAX = 300.0


def functions(source: str) -> list[int]:
    """Lines of each function, decorators left out."""
    nodes = (node for node in ast.walk(ast.parse(source)))
    found = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in found]


def results() -> list[Result]:
    sources = [path.read_text() for folder in HOUSE for path in sorted((ROOT / folder).rglob("*.py"))]
    lines = [length for source in sources for length in functions(source)]
    modules = [len(source.splitlines()) for source in sources if source.strip()]
    found = [_result(f"function_lines_p{q}", lines, q, target) for q, target in FUNCTION_LINES.items()]
    found += [_result(f"module_lines_p{q}", modules, q, None) for q in (50, 90, 99)]
    return [*found, _result("module_lines_max", modules, 100, MODULE_LINES_MAX)]


def _result(measure: str, sizes: list[int], q: int, target: float | None) -> Result:
    value = float(np.percentile(sizes, q))
    return Result(
        measure=measure, value=value, unit="lines", better="lower", target=target, samples=len(sizes)
    )


def main() -> None:
    options = arguments("sizes", "Sizes of functions and modules.").parse_args()
    report("sizes", results(), options.json)


if __name__ == "__main__":
    main()
