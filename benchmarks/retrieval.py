"""How much of what an agent needs does a search find?

A bank's 698 documents, and what 49 customers want (rho_bank, from tau2-bench), put to the real store and the
real embedder. A customer's task names the documents that solving it takes; recall at k is the share of them
among the first k distinct documents found, averaged over the tasks. The same query goes to BM25 alone
(LanceDB's, stemmed, without stop words, title and text), to vectors alone, and to both. The even and the
odd tasks are also reported apart: the ranking's constants were chosen on the even ones, checked on the odd.

Search times are one caller's, over the tasks' queries in hybrid mode, embedding included.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any, get_args

import msgspec

from benchmarks.report import Result, arguments, report
from flotilla.connectors import documents
from flotilla.core.knowledge import Document, SearchMode
from flotilla.stores.lance import LanceKnowledge
from models.embedder import MiniLM

DATA = Path(__file__).resolve().parents[2] / "shared/data/rho_bank"
CUTS = (5, 10, 20)
PASSAGES = 100  # a document has two passages on average, so these hold well over 20 documents
POINTS_TARGET = 10.0
SEARCH_P95_TARGET_MS = 30.0
TENANT, COLLECTION = "benchmark", "rho_bank"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    query: str
    required: frozenset[str]


# --- what the customer wants ---

_SCRIPT = re.compile(r"(?m)^\s*#+ ")  # the first heading: from there on, how to play the part
_SPOKEN = re.compile(r'["“]([^"”]{15,})["”]')
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_MARKUP = re.compile(r"^\s*(?:[-*]|\d+\.)\s+|\*\*[^*:]{0,80}:\*\*|\*\*")
_CONTACT = re.compile(r"(?i)\b(e-?mail|phone|dob|date of birth|address|full name|user id|name:|zip)\b")
_STAGE = re.compile(
    r"(?i)\b(agent|representative|playing the role|information|tools?|do not|don't|never|if you|behave"
    r"|verification|account_type|upfront)\b"
)
_PERSONA = re.compile(r"(?i)^(you are|your character is)\b.*?\b(\d+-year-old|named)\b")


def wanted(instructions: str) -> str:
    """The query in the instructions of somebody who plays a customer: his story, then his opening words.

    The story is what stands before the script, without sentences that introduce the persona, give contact
    data or direct the play. The same few rules hold for all tasks.
    """
    script = _SCRIPT.search(instructions)
    at = script.start() if script else len(instructions)
    sentences = (_MARKUP.sub("", line).strip() for line in _SENTENCE_END.split(instructions[:at]))
    story = [sentence for sentence in sentences if _tells(sentence)]
    return "\n".join([*story, *_SPOKEN.findall(instructions[at:])[:1]])


def _tells(sentence: str) -> bool:
    noise = (_CONTACT.search(sentence), _STAGE.search(sentence), _PERSONA.search(sentence))
    return len(sentence.split()) >= 3 and not any(noise)


def questions(tasks: Path) -> list[Question]:
    return [
        Question(
            query=wanted(task["user_scenario"]["instructions"]),
            required=frozenset(task["required_documents"]),
        )
        for task in msgspec.json.decode(tasks.read_bytes())
    ]


# --- measuring ---


async def found(store: LanceKnowledge, query: str, mode: SearchMode) -> list[str]:
    """Document ids, best first."""
    hits = await store.search(TENANT, COLLECTION, query, limit=PASSAGES, mode=mode)
    return list(dict.fromkeys(hit.passage.document for hit in hits))


def recall(lists: Sequence[Sequence[str]], asked: Sequence[Question], cut: int) -> float:
    """In percent."""
    shares = [len(question.required & set(ids[:cut])) / len(question.required)
              for ids, question in zip(lists, asked, strict=True)]  # fmt: skip
    return 100 * mean(shares)


async def recalls(store: LanceKnowledge, asked: Sequence[Question]) -> list[Result]:
    lists = {
        mode: [await found(store, question.query, mode) for question in asked]
        for mode in get_args(SearchMode)
    }

    def points(half: slice, cut: int) -> float:
        values = {mode: recall(ids[half], asked[half], cut) for mode, ids in lists.items()}
        return values["hybrid"] - values["bm25"]

    def row(measure: str, value: float, unit: str, target: float | None = None) -> Result:
        return Result(
            measure=measure,
            value=round(value, 2),
            unit=unit,
            better="higher",
            target=target,
            samples=len(asked),
        )

    return [
        row("hybrid_over_bm25_points", points(slice(None), 20), "points", POINTS_TARGET),
        row("hybrid_over_bm25_points_even", points(slice(0, None, 2), 20), "points"),
        row("hybrid_over_bm25_points_odd", points(slice(1, None, 2), 20), "points"),
        *(
            row(f"recall_at_{cut}_{mode}", recall(lists[mode], asked, cut), "%")
            for cut in CUTS
            for mode in ("bm25", "vector", "hybrid")
        ),
    ]


async def timed(store: LanceKnowledge, asked: Sequence[Question], rounds: int) -> list[Result]:
    """One caller, one search after the other; the median of the rounds' percentiles."""
    percentiles: list[tuple[float, float]] = []
    for _ in range(rounds):
        times: list[float] = []
        for question in asked:
            start = time.perf_counter()
            await store.search(TENANT, COLLECTION, question.query, limit=20)
            times.append(1000 * (time.perf_counter() - start))
        cuts = quantiles(times, n=20, method="inclusive")
        percentiles.append((cuts[9], cuts[18]))
    p50s, p95s = zip(*percentiles, strict=True)
    return [
        _time("search_p95_ms", p95s, len(asked) * rounds, SEARCH_P95_TARGET_MS),
        _time("search_p50_ms", p50s, len(asked) * rounds, None),
    ]


def _time(measure: str, values: Sequence[float], samples: int, target: float | None) -> Result:
    middle = median(values)
    return Result(
        measure=measure,
        value=round(middle, 2),
        unit="ms",
        better="lower",
        target=target,
        samples=samples,
        spread=round((max(values) - min(values)) / middle, 3),
    )


async def measure(bank: Sequence[Document], asked: Sequence[Question], rounds: int) -> list[Result]:
    embedder = MiniLM()
    with tempfile.TemporaryDirectory() as folder:
        store = LanceKnowledge(folder, embedder)
        try:
            await store.upsert(TENANT, COLLECTION, bank)
            await store.settle()
            return [*await recalls(store, asked), *await timed(store, asked, rounds)]
        finally:
            await store.close()
            await embedder.close()


def main() -> None:
    parser = arguments("retrieval", "Recall and speed of hybrid search, against BM25 and vectors alone.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with documents.jsonl and tasks.json")
    parser.add_argument("--tasks", type=Path, help="another set of questions, in the form of tasks.json")
    args: Any = parser.parse_args()
    bank = [d for d in documents.read(args.data / "documents.jsonl") if isinstance(d, Document)]
    asked = questions(args.tasks or args.data / "tasks.json")
    report("retrieval", asyncio.run(measure(bank, asked, 3 if args.quick else 10)), args.json)


if __name__ == "__main__":
    main()
