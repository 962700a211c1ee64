"""Every format is read; what can't be read is named, and the rest goes on."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla.connectors import documents
from flotilla.connectors.documents import Unreadable, jsonl, read
from flotilla.core.knowledge import Document

PAGE = """<html><head><title>Fees</title></head><body><nav><a href="/">Home</a><a href="/x">Shop</a></nav>
<main><article><h1>Fees of the Gold Card</h1><p>The Gold Card costs 95 dollars a year, and the first year is free
for customers of the bank who have an account.</p><h2>Abroad</h2><p>There is no fee for purchases abroad, in any
country and in any currency whatever.</p></article></main><footer>Imprint</footer></body></html>"""


def pdf(*pages: str) -> bytes:
    from reportlab.pdfgen.canvas import Canvas

    buffer = io.BytesIO()
    canvas = Canvas(buffer)
    canvas.setTitle("Terms")
    for page in pages:
        canvas.drawString(72, 720, page)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def split(items: Iterable[Document | Unreadable]) -> tuple[list[Document], dict[str, str]]:
    both = list(items)
    good = [item for item in both if isinstance(item, Document)]
    return good, {item.name: item.reason for item in both if isinstance(item, Unreadable)}


def one(path: Path, content: str | bytes) -> Document:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (document,), bad = split(read(path))
    assert not bad
    return document


def test_every_module_of_the_folder_is_a_format() -> None:
    folder = Path(documents.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {format.__name__.rpartition(".")[2] for format in documents.formats().values()} == modules
    assert all(suffix.startswith(".") for suffix in documents.formats())


def test_jsonl(tmp_path: Path) -> None:
    lines = [{"id": "a", "title": "A", "text": "One."}, {"id": "b", "content": "Two."}]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    good, bad = split(read(tmp_path / "x.jsonl"))
    assert good == [Document(id="a", title="A", text="One."), Document(id="b", title="b", text="Two.")]
    assert not bad


def test_a_broken_line_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    lines = [
        b'{"id": "a", "text": "One."}',
        b"{nonsense",
        b'{"id": "b"}',
        b"\xff\xfe",
        b'{"id": "c", "text": "Three."}',
    ]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    good, bad = split(read(tmp_path / "x.jsonl"))
    assert [document.id for document in good] == ["a", "c"]
    assert set(bad) == {"x.jsonl:2", "x.jsonl:3", "x.jsonl:4"}
    assert bad["x.jsonl:3"] == "Has no text."


@given(st.lists(st.binary(max_size=40), max_size=10).map(b"\n".join))
def test_no_bytes_break_jsonl(content: bytes) -> None:
    assert all(isinstance(item, Document | Unreadable) for item in jsonl.parse("x", content))


def test_markdown(tmp_path: Path) -> None:
    document = one(tmp_path / "gold.md", "Intro.\n\n## Gold Card ##\n\nIt costs 95 dollars.\n")
    assert (document.id, document.title) == ("gold.md", "Gold Card")
    assert document.text == "Intro.\n\n## Gold Card ##\n\nIt costs 95 dollars.\n"
    document = one(tmp_path / "front.md", '---\ntitle: "The Card"\ntags: x\n---\n# Other\n\nText.')
    assert (document.title, document.text) == ("The Card", "# Other\n\nText.")


def test_html(tmp_path: Path) -> None:
    document = one(tmp_path / "fees.html", PAGE)
    assert "95 dollars a year" in document.text
    assert "## Abroad" in document.text
    assert "Shop" not in document.text
    assert document.title.startswith("Fees")


def test_pdf(tmp_path: Path) -> None:
    document = one(tmp_path / "terms.pdf", pdf("The fee is 95 dollars.", "It is due in May."))
    assert document.title == "Terms"
    assert "The fee is 95 dollars." in document.text
    assert "It is due in May." in document.text


def test_text(tmp_path: Path) -> None:
    assert one(tmp_path / "a.txt", "\ufeffFees\n\nNone.").title == "Fees"
    assert one(tmp_path / "b.txt", "word " * 100).title == "b"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pdf", b"%PDF-1.4 broken", "PDF"),
        ("b.pdf", pdf(""), "no text"),
        ("c.md", b"\xff\xfe\x00", "UTF-8"),
        ("d.txt", b"  \n", "no text"),
        ("e.html", b"<html></html>", "no main text"),
        ("f.exe", b"MZ", "format .exe"),
        ("g", b"", "format (none)"),
        ("h.pdf", b"", "PDF"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "z.txt").write_text("Good.")
    good, bad = split(read(tmp_path))
    assert [document.id for document in good] == ["z.txt"]
    assert set(bad) == {name}
    assert reason in bad[name]


def test_a_folder_is_walked_in_order_and_ids_are_paths(tmp_path: Path) -> None:
    for name in ("b/two.md", "a/one.txt", "b/.hidden.md", ".git/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"Text of {name}")
    good, bad = split(read(tmp_path))
    assert [document.id for document in good] == ["a/one.txt", "b/two.md"]
    assert not bad


def test_a_locked_pdf_says_so(tmp_path: Path) -> None:
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("Secret.")))
    writer.encrypt("password", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    good, bad = split(read(tmp_path))
    assert not good
    assert "password" in bad["locked.pdf"]


def test_too_large_files_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "FILE_BYTES_MAX", 10)
    (tmp_path / "a.txt").write_text("x" * 11)
    (tmp_path / "b.txt").write_text("x" * 10)
    good, bad = split(read(tmp_path))
    assert [document.id for document in good] == ["b.txt"]
    assert "Larger" in bad["a.txt"]


def test_doubled_ids_and_missing_paths_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": "a", "text": "One."}\n{"id": "a", "text": "Two."}')
    good, bad = split(read(tmp_path / "x.jsonl"))
    assert [document.text for document in good] == ["One."]
    assert set(bad) == {"a"}
    assert set(split(read(tmp_path / "missing"))[1]) == {str(tmp_path / "missing")}
