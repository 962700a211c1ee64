"""The columns of a table of passages, and which embedder's vectors are in which.

The name of a column of vectors says whose they are and what they are for: `live_…` are searched, `next_…` are
being made beside them, `left_…` were live. The switch renames two columns in one commit. Whoever goes by an
older layout names a column that isn't there any more and gets an error; vectors of two embedders, or a query
of one and passages of another, never meet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from flotilla.core.knowledge import Passage
from flotilla.core.ports import Vectors

LIVE, NEXT, LEFT = "live_", "next_", "left_"
# Tables made before embedders could be changed: one column of this name, made by this embedder.
UNMARKED, UNMARKED_EMBEDDER = "vector", "all-MiniLM-L6-v2@1"
TEXTS = ("document", "title", "text", "words", "hash")

Rows = Any  # pyarrow.Table; pyarrow has no types


class Column(msgspec.Struct, frozen=True):
    """A column of vectors."""

    name: str
    embedder: str
    dimensions: int


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    live: Column
    building: Column | None = None
    left: tuple[Column, ...] = ()

    @property
    def written(self) -> tuple[Column, ...]:
        """Where the vectors of a new passage go."""
        return (self.live, self.building) if self.building else (self.live,)


def column_of(purpose: str, embedder: str, dimensions: int) -> Column:
    digest = hashlib.sha256(embedder.encode()).hexdigest()[:16]
    return Column(purpose + digest, embedder, dimensions)


def renamed(column: Column, purpose: str) -> str:
    return column_of(purpose, column.embedder, column.dimensions).name


def field_of(column: Column) -> Any:
    """May be null: passages get the vectors that are being made bit by bit."""
    metadata = {"embedder": column.embedder}
    return pa.field(column.name, pa.list_(pa.float32(), column.dimensions), metadata=metadata)


def schema_of(columns: Sequence[Column]) -> Any:
    primary = {"lance-schema:unenforced-primary-key": "true"}
    key = pa.field("id", pa.string(), nullable=False, metadata=primary)
    texts = [pa.field(name, pa.string(), nullable=False) for name in TEXTS]
    return pa.schema([key, *texts, *(field_of(column) for column in columns)])


def layout_of(schema: Any) -> Layout | None:
    """None for a table with an unmarked column."""
    columns = [_column(field) for field in schema if pa.types.is_fixed_size_list(field.type)]
    lives, nexts, lefts = ([c for c in columns if c.name.startswith(p)] for p in (LIVE, NEXT, LEFT))
    if not lives:
        return None
    return Layout(live=lives[0], building=nexts[0] if nexts else None, left=tuple(lefts))


def _column(field: Any) -> Column:
    embedder = (field.metadata or {}).get(b"embedder", UNMARKED_EMBEDDER.encode())
    return Column(field.name, embedder.decode(), field.type.list_size)


# --- rows ---


def words(passage: Passage) -> str:
    """What is indexed and embedded: a passage alone often doesn't say what it is about."""
    return f"{passage.title}\n{passage.text}"


def rows_of(
    passages: Sequence[Passage], hashes: Sequence[str], layout: Layout, vectors: Mapping[str, Vectors]
) -> Rows:
    """`vectors` by embedder; where one is missing its column is empty."""
    columns: dict[str, Any] = {
        "id": [passage.id for passage in passages],
        "document": [passage.document for passage in passages],
        "title": [passage.title for passage in passages],
        "text": [passage.text for passage in passages],
        "words": [words(passage) for passage in passages],
        "hash": hashes,
    }
    for column in layout.written:
        made = vectors.get(column.embedder)
        columns[column.name] = (
            pa.nulls(len(passages), field_of(column).type) if made is None else array_of(made)
        )
    return pa.table(columns, schema=schema_of(layout.written))


def array_of(vectors: Vectors) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def vectors_of(column: Any) -> Vectors:
    """Shape `(rows, dimensions)`; zeros where there is none yet."""
    known = column.drop_null().combine_chunks().flatten().to_numpy()
    known = known.reshape(-1, column.type.list_size)
    if not column.null_count:
        return known
    vectors = np.zeros((len(column), column.type.list_size), np.float32)
    vectors[column.is_valid().to_numpy()] = known
    return vectors
